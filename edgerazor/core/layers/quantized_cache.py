"""Keys and values that enter a cache are quantized on their way in, so that decoding quantizes each of them once.

Without this the attention function would quantize all earlier tokens again at every step. The result is the same to the
bit: each token and head is quantized by itself (METHOD 3). Any cache of transformers serves; it is not changed.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache

_LAST = "_quantized_cache"


class QuantizedCache:
    """A cache as one attention module sees it during one forward pass.

    Attributes:
        given: the keys and values that the cache returned, quantized.
    """

    def __init__(self, of: Cache, quantizer: Any):
        self._cache, self._quantizer = of, quantizer
        self.given: tuple[Any, Any] = (None, None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def update(self, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """`Cache.update` of keys and values `[batch, kv_heads, seq, head_dim]`, quantized."""
        if torch.is_grad_enabled() or keys.shape != values.shape:
            keys, values = self._quantizer.fake_quantize(keys), self._quantizer.fake_quantize(values)
        else:
            # For one token a call costs more than its arithmetic.
            keys, values = self._quantizer.fake_quantize_only(torch.stack((keys, values)))
        self.given = self._cache.update(keys, values, *args, **kwargs)
        return self.given


class QuantizesUpdates:
    """What an attention module becomes whose caches are to hold quantized keys and values."""

    original: Any

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        seen, quantizer = kwargs.get("past_key_values"), self.__dict__.get("kv_quantizer")
        if quantizer is not None and isinstance(seen, Cache):
            self.__dict__[_LAST] = kwargs["past_key_values"] = QuantizedCache(seen, quantizer)
        return super().forward(*args, **kwargs)  # type: ignore[misc]

    def __reduce__(self) -> tuple[Any, ...]:
        return _empty, (self.original,), self.__dict__  # the class itself cannot be imported


def quantize_updates(module: Any) -> None:
    """Turn an attention module into one that quantizes what it puts into a cache, in place."""
    kind: Any = type(module)
    if not issubclass(kind, QuantizesUpdates):
        module.__class__ = _class(kind)


def leave_updates(module: Any) -> None:
    """Undo `quantize_updates`."""
    if isinstance(module, QuantizesUpdates):
        module.__class__ = module.original


def are_quantized(module: nn.Module, keys: Tensor, values: Tensor) -> bool:
    """Whether keys and values that reach the attention function are those that the module's cache gave."""
    seen: QuantizedCache | None = module.__dict__.pop(_LAST, None)
    return seen is not None and seen.given[0] is keys and seen.given[1] is values


@cache
def _class(original: Any) -> Any:
    # The name stays: transformers and its users look for modules by it.
    return type(
        original.__name__, (QuantizesUpdates, original), {"original": original, "__module__": original.__module__}
    )


def _empty(original: Any) -> Any:
    kind = _class(original)
    return kind.__new__(kind)
