"""Quantized values of latent weights, kept from one optimizer step to the next (KERNELS 1.7).

Gradient accumulation, recomputation under activation checkpointing, the backward pass and a tied head then share one
quantization per step. Nobody tells a module when its weights change, so the cache is off until `cached_weights` is
entered around a loop that knows.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.weak import WeakTensorKeyDictionary

from edgerazor.core.contracts import Quantizer
from edgerazor.core.tensor import QuantizedTensor, quantize_dequantize

Policy = Literal["off", "codes", "full"]
FULL_UP_TO = 2_000_000_000
_STALE = "a kept weight is stale; what wrote it did not call invalidate()"


class _Key(NamedTuple):
    """What a kept value was made from; another key means that it is stale."""

    epoch: int
    version: int
    address: int
    quantizer: Any


class _Entry:
    def __init__(self, key: _Key):
        self.key = key
        self.values: dict[torch.dtype, Tensor] = {}
        self.quantized: QuantizedTensor | None = None


class WeightCache:
    """Values by weight and dtype; a value is made at its first use after anything changed.

    A change is seen by the weight's version counter, its address, the step of any optimizer, and `invalidate`, which
    every writer that works past autograd has to call: writes through `.data`, views of a flat buffer, raw pointers.

    Args:
        policy: `full` keeps values (2 or 4 bytes per weight, and codes where products are made of them), `codes` keeps
            codes and scales (about 1 byte).
        check: make every value anew and compare; for tests.
    """

    def __init__(self, policy: Policy = "full", *, check: bool = False):
        self.policy, self.check, self.epoch = policy, check, 0
        self.quantizations = 0
        self._entries = WeakTensorKeyDictionary()

    def invalidate(self) -> None:
        """Take whatever is kept for stale from now on."""
        self.epoch += 1

    def value(self, weight: Tensor, quantizer: Quantizer, dtype: torch.dtype) -> Tensor:
        """`quantizer.quantize(weight).dequantize(dtype)` in the shape of the weight, detached; do not write to it."""
        # A tensor made in inference mode could not be saved by autograd later.
        with torch.inference_mode(False), torch.no_grad():
            value = self._value(self._entry(weight, quantizer), weight, quantizer, dtype)
            if self.check:
                made = quantizer.fake_quantize(weight.detach()).to(dtype)
                assert torch.equal(made, value), _STALE
        return value

    def quantized(self, weight: Tensor, quantizer: Quantizer, dtype: torch.dtype) -> QuantizedTensor:
        """`quantizer.quantize(weight)`; do not write to it. `dtype` is that of the values that will be wanted too."""
        with torch.inference_mode(False), torch.no_grad():
            entry = self._entry(weight, quantizer)
            if entry.quantized is None and self.policy == "full":
                entry.quantized, entry.values[dtype] = quantize_dequantize(weight, quantizer, dtype)
                self.quantizations += 1
            quantized = self._quantized(entry, weight, quantizer)
            if self.check:
                made = quantizer.quantize(weight.detach())
                assert torch.equal(made.codes, quantized.codes) and torch.equal(made.scale, quantized.scale), _STALE
        return quantized

    def _entry(self, weight: Tensor, quantizer: Quantizer) -> _Entry:
        version = -1 if weight.is_inference() else weight._version
        key = _Key(self.epoch, version, weight.data_ptr(), quantizer.params)
        entry: _Entry | None = self._entries.get(weight)
        if entry is None or entry.key != key:
            entry = self._entries[weight] = _Entry(key)
        return entry

    def _quantized(self, entry: _Entry, weight: Tensor, quantizer: Quantizer) -> QuantizedTensor:
        if entry.quantized is None:
            entry.quantized = quantizer.quantize(weight.detach())
            self.quantizations += 1
        return entry.quantized

    def _value(self, entry: _Entry, weight: Tensor, quantizer: Quantizer, dtype: torch.dtype) -> Tensor:
        if self.policy == "codes":
            return self._quantized(entry, weight, quantizer).dequantize(dtype).reshape(weight.shape)
        if dtype not in entry.values:
            entry.values[dtype] = quantizer.fake_quantize(weight.detach()).to(dtype)
            self.quantizations += 1
        return entry.values[dtype]


@contextmanager
def cached_weights(model: nn.Module, *, policy: Policy | None = None, check: bool = False) -> Iterator[WeightCache]:
    """Let all quantized modules of a model share a cache, until the block is left.

    Args:
        model: with a plan applied; wrappers around it may come later.
        policy: None takes `full` up to two billion parameters, else `codes`.

    Yields:
        The cache, so that a loop can `invalidate` it.
    """
    if policy is None:
        policy = "full" if sum(value.numel() for value in model.parameters()) <= FULL_UP_TO else "codes"
    cache = WeightCache(policy, check=check)
    modules = [module for module in model.modules() if hasattr(module, "weight_cache")]
    before = [module.weight_cache for module in modules]
    hook = register_optimizer_step_post_hook(lambda *_: cache.invalidate())
    for module in modules:
        module.weight_cache = None if policy == "off" else cache  # type: ignore[assignment]
    try:
        yield cache
    finally:
        hook.remove()
        for module, earlier in zip(modules, before, strict=True):
            module.weight_cache = earlier
