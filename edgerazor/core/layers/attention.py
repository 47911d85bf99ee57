"""Quantized keys and values, as an attention function: active in training, evaluation and `generate()` alike.

Quantization belongs to attention, not to a cache object (METHOD 3): keys and values are fake-quantized after k-norm and
RoPE, along head_dim, one token and head at a time, then handed to the attention of transformers. Where there is a
cache, that happens on their way into it (`quantized_cache`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from edgerazor.core.layers.quantized_cache import are_quantized, leave_updates, quantize_updates
from edgerazor.errors import PlanError

SDPA, EAGER = "edgerazor_sdpa", "edgerazor_eager"
IMPLEMENTATIONS = {"sdpa": SDPA, "eager": EAGER, SDPA: SDPA, EAGER: EAGER}
_HOOKS = "_kv_quantizer_hooks"


def register_attention() -> None:
    """Register `edgerazor_sdpa` and `edgerazor_eager` with transformers; safe to call again."""
    AttentionInterface.register(SDPA, _sdpa)
    AttentionInterface.register(EAGER, _eager)
    AttentionMaskInterface.register(SDPA, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    AttentionMaskInterface.register(EAGER, ALL_MASK_ATTENTION_FUNCTIONS["eager"])


def apply_kv_quantizer(model: nn.Module, quantizer: Any, *, attentions: bool = False) -> None:
    """Make every attention module of `model` quantize its keys and values.

    Args:
        model: a transformers model whose attention goes through the attention interface.
        quantizer: applied to `[batch, kv_heads, seq, head_dim]`, or None for unquantized keys and values.
        attentions: True where attention probabilities are read, which only the eager form gives.

    Raises:
        PlanError: the model uses another attention implementation, or has no attention module with a head_dim.
    """
    register_attention()
    current = _implementation(model, "quantize")
    modules = attention_modules(model)
    if not modules:
        raise PlanError(f"{type(model).__name__}: no attention module was found to quantize keys and values in")
    for name, module in modules:
        if quantizer is not None:
            try:
                quantizer.check_shape((1, module.head_dim))
            except PlanError as error:
                raise PlanError(f"{name}: kv_cache: head_dim: {error}") from error
    remove_kv_quantizer(model)
    for _, module in modules:
        module.kv_quantizer = quantizer
        if quantizer is not None:
            quantize_updates(module)
    if quantizer is not None:
        # Whoever sets another implementation later, as `model.set_attn_implementation("sdpa")`, keeps the quantizer.
        parts = dict.fromkeys((model, getattr(model, "base_model", model)))
        model.__dict__[_HOOKS] = [part.register_forward_pre_hook(_stay_quantized) for part in parts]
    model.set_attn_implementation(EAGER if attentions else IMPLEMENTATIONS[current])  # type: ignore[operator]


def remove_kv_quantizer(model: nn.Module) -> None:
    """Leave keys and values as they are, from now on."""
    for hook in model.__dict__.pop(_HOOKS, ()):
        hook.remove()
    for _, module in attention_modules(model):
        module.__dict__.pop("kv_quantizer", None)
        leave_updates(module)


def attention_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Modules that call the attention interface, by full name."""
    return [
        (name, module)
        for name, module in model.named_modules()
        if hasattr(module, "head_dim") and hasattr(module, "layer_idx") and hasattr(module, "config")
    ]


def head_widths(model: nn.Module) -> list[int]:
    """`head_dim` of all attention modules, each value once."""
    widths: set[Any] = {module.head_dim for _, module in attention_modules(model)}
    return sorted(widths)


@contextmanager
def recorded_keys_and_values(model: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collect keys and values, as attention sees them, of every attention call inside the `with` block, in order.

    Each entry is `[batch, kv_heads, seq, head_dim]` twice. The model computes what it did before, but stays with our
    attention function.

    Raises:
        PlanError: the model's attention does not go through the attention interface.
    """
    register_attention()
    current = _implementation(model, "give")
    if current not in (SDPA, EAGER):
        model.set_attn_implementation(IMPLEMENTATIONS[current])  # type: ignore[operator]
    record: list[tuple[Tensor, Tensor]] = []
    modules = [module for _, module in attention_modules(model)]
    for module in modules:
        module.kv_record = record  # type: ignore[assignment]
    try:
        yield record
    finally:
        for module in modules:
            del module.kv_record


def _stay_quantized(model: Any, arguments: Any) -> None:
    """Before a forward pass: an implementation that was set in the meantime becomes the one that quantizes."""
    current = _implementation(model, "quantize")
    if current != IMPLEMENTATIONS[current]:
        model.set_attn_implementation(IMPLEMENTATIONS[current])


def _implementation(model: nn.Module, purpose: str) -> str:
    current = getattr(model.config, "_attn_implementation", None)
    if current not in IMPLEMENTATIONS:
        raise PlanError(
            f"attention implementation '{current}' cannot {purpose} keys and values; take 'sdpa' or 'eager'"
        )
    return str(current)


def _sdpa(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
    return sdpa_attention_forward(module, query, *_quantized(module, key, value), *args, **kwargs)


def _eager(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
    return _eager_of(module)(module, query, *_quantized(module, key, value), *args, **kwargs)


def _quantized(module: nn.Module, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values as attention is to see them."""
    # Where an attribute is missing, a module would search and format an error.
    quantizer: Any = module.__dict__.get("kv_quantizer")
    if quantizer is not None and not are_quantized(module, key, value):
        key, value = quantizer.fake_quantize(key), quantizer.fake_quantize(value)
    record: Any = module.__dict__.get("kv_record")
    if record is not None:
        record.append((key, value))
    return key, value


def _eager_of(module: nn.Module) -> Callable[..., Any]:
    """The eager attention that the model's own file defines."""
    import sys

    registered = ALL_ATTENTION_FUNCTIONS.get("eager")
    function = getattr(sys.modules[type(module).__module__], "eager_attention_forward", registered)
    if function is None:
        raise PlanError(f"{type(module).__name__}: this model has no eager attention")
    return function  # type: ignore[no-any-return]
