"""A quantized linear layer as one autograd function (KERNELS 1.3 and 1.8).

Gradients pass straight through both quantizers. For the backward pass it keeps the input as int8 codes and scales,
about one byte per element, and the latent weight, which is quantized again, or taken from the weight cache.
"""

from typing import Any
from weakref import ref

import torch
from torch import Tensor

from edgerazor.core.contracts import Quantizer
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.core.weight_cache import WeightCache
from edgerazor.kernels.dispatch import dequantize
from edgerazor.kernels.products import linear, matrix_product


class InputSlot:
    """The last quantized input of a model: q, k and v get the same tensor, so do gate and up; it is quantized once."""

    def __init__(self) -> None:
        self._source: ref[Tensor] | None = None
        self._key: tuple[Any, ...] = ()
        self._result: tuple[QuantizedTensor, Tensor] | None = None
        self._codes: ref[Tensor] | None = None
        self._value: Tensor | None = None
        self.quantizations = self.dequantizations = 0

    def quantize(self, x: Tensor, quantizer: Any, dtype: torch.dtype) -> tuple[QuantizedTensor, Tensor]:
        """Codes and scales of `x`, and their values in `dtype`; the last ones again if nothing changed."""
        # A tensor made in inference mode counts no versions, so it is never taken for unchanged.
        key = (object() if x.is_inference() else x._version, quantizer.params, dtype)
        if self._result is None or self._source is None or self._source() is not x or self._key != key:
            self.clear()
            self._result = _quantize_dequantize(x, quantizer, dtype)
            self._source, self._key = ref(x), key
            self.quantizations += 1
        return self._result

    def dequantize(self, codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        """The value of kept codes; of the last ones again, since q, k and v go backward one after another."""
        if self._value is None or self._value.dtype != dtype or self._codes is None or self._codes() is not codes:
            self._codes, self._value = ref(codes), dequantize(codes, scale, dtype)
            self.dequantizations += 1
        return self._value

    def clear(self) -> None:
        """Give the memory back."""
        self._source = self._result = self._codes = self._value = None


def quantized_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    weight_quantizer: Quantizer | None,
    input_quantizer: Quantizer | None,
    cache: WeightCache | None = None,
    slot: InputSlot | None = None,
) -> Tensor:
    """`linear(Q(x), Q(weight), bias)` in the dtype that autocast asks for, or that of the weight.

    Args:
        x: `[..., C]`.
        weight: latent `[R, C]`.
        weight_quantizer, input_quantizer: either may be None.
        cache: holds the quantized weight between optimizer steps; None quantizes in every pass.
        slot: shares the quantized input with other layers.
    """
    layer = _Layer(weight_quantizer, input_quantizer, cache, slot or InputSlot(), compute_dtype(weight))
    result: Tensor = _QuantizedLinear.apply(x, weight, bias, layer)  # type: ignore[no-untyped-call]
    return result


def compute_dtype(weight: Tensor) -> torch.dtype:
    """What autocast asks for on this device, else the dtype of the weight."""
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


def quantized_weight(
    weight: Tensor, quantizer: Quantizer | None, cache: WeightCache | None, dtype: torch.dtype
) -> Tensor:
    """Detached values of a latent weight in `dtype`."""
    if quantizer is None:
        return weight.detach().to(dtype)
    if cache is not None:
        return cache.value(weight, quantizer, dtype)
    with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
        return quantizer.fake_quantize(weight.detach()).to(dtype)


class WeightValue(torch.autograd.Function):
    """Quantized values of a latent weight, with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, quantizer: Quantizer, cache: WeightCache, dtype: torch.dtype) -> Tensor:
        ctx.dtype = weight.dtype
        # Another tensor object each time: autograd writes its history into the one that is returned.
        return quantized_weight(weight, quantizer, cache, dtype).view(weight.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        return gradient.to(ctx.dtype), None, None, None


class _Layer:
    """What the function needs besides tensors."""

    def __init__(
        self,
        weight_quantizer: Quantizer | None,
        input_quantizer: Quantizer | None,
        cache: WeightCache | None,
        slot: InputSlot,
        dtype: torch.dtype,
    ):
        self.weight_quantizer, self.input_quantizer = weight_quantizer, input_quantizer
        self.cache, self.slot, self.dtype = cache, slot, dtype

    def weight(self, latent: Tensor) -> Tensor:
        return quantized_weight(latent, self.weight_quantizer, self.cache, self.dtype)


class _QuantizedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: _Layer) -> Tensor:
        ctx.layer, ctx.dtypes = layer, (x.dtype, weight.dtype, None if bias is None else bias.dtype)
        with torch.autocast(x.device.type, enabled=False):
            if layer.input_quantizer is None:
                value = x.to(layer.dtype)
                ctx.save_for_backward(weight, value)
            else:
                quantized, value = layer.slot.quantize(x, layer.input_quantizer, layer.dtype)
                ctx.save_for_backward(weight, quantized.codes, quantized.scale)
            return linear(value, layer.weight(weight), None if bias is None else bias.to(layer.dtype))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        layer, (weight, *kept) = ctx.layer, ctx.saved_tensors
        need_input, need_weight, need_bias = ctx.needs_input_grad[:3]
        of_input = of_weight = of_bias = None
        gradient = gradient.to(layer.dtype)
        rows = gradient.flatten(0, -2)
        with torch.autocast(gradient.device.type, enabled=False):
            if need_input:
                of_input = matrix_product(rows, layer.weight(weight), ctx.dtypes[0]).unflatten(0, gradient.shape[:-1])
            if need_weight:
                value = kept[0] if len(kept) == 1 else layer.slot.dequantize(*kept, ctx.dtypes[0]).to(layer.dtype)
                of_weight = matrix_product(rows.t(), value.flatten(0, -2), ctx.dtypes[1])
            if need_bias:
                of_bias = rows.sum(dim=0, dtype=ctx.dtypes[2])
        return of_input, of_weight, of_bias, None


def _quantize_dequantize(x: Tensor, quantizer: Any, dtype: torch.dtype) -> tuple[QuantizedTensor, Tensor]:
    """In one pass where the quantizer offers it; values in `x`'s dtype are rounded first, as a layer's input is."""
    x = x.detach()
    if hasattr(quantizer, "quantize_dequantize"):
        quantized, value = quantizer.quantize_dequantize(x)
    else:
        quantized = quantizer.quantize(x)
        value = quantized.dequantize(x.dtype)
    return quantized, value.to(dtype)
