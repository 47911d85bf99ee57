"""A quantized linear layer as one autograd function (KERNELS 1.3 and 1.8).

Gradients pass straight through both quantizers. For the backward pass it keeps the input as int8 codes and scales,
about one byte per element, and the latent weight, which is quantized again, or taken from the weight cache.
"""

from typing import Any, TypeVar
from weakref import ref

import torch
from torch import Tensor
from torch.nn import functional

from edgerazor.core.contracts import Quantizer
from edgerazor.core.layers.weight_cache import WeightCache
from edgerazor.core.tensor import QuantizedTensor, quantize_dequantize
from edgerazor.kernels.cpu_products import CodedMatrix, CodedOperands, integer_linear, linear, matrix_product
from edgerazor.kernels.dispatch import dequantize, multiplies_codes
from edgerazor.kernels.processor import Processor, this_processor

KeptT = TypeVar("KeptT", bound=QuantizedTensor | None)


class InputSlot:
    """The last quantized input of a model: q, k and v get the same tensor, so do gate and up; it is quantized once."""

    def __init__(self) -> None:
        self._source: ref[Tensor] | None = None
        self._key: tuple[Any, ...] = ()
        self._quantized: QuantizedTensor | None = None
        self._values: dict[torch.dtype, Tensor] = {}
        self._codes: ref[Tensor] | None = None
        self._value: Tensor | None = None
        self.quantizations = self.dequantizations = 0

    def quantize(self, x: Tensor, quantizer: Any) -> QuantizedTensor:
        """Codes and scales of `x`: those of the last call if it had the same tensor, unchanged, and quantizer."""
        kept = self._kept(x, quantizer)
        return self._keep(x, quantizer, quantizer.quantize(x.detach())) if kept is None else kept

    def quantize_dequantize(self, x: Tensor, quantizer: Any, dtype: torch.dtype) -> tuple[QuantizedTensor, Tensor]:
        """Codes and scales of `x`, and their values in `dtype`; the last ones again if nothing changed."""
        quantized = self._kept(x, quantizer)
        if quantized is None:
            quantized, value = quantize_dequantize(x, quantizer, dtype)
            self._keep(x, quantizer, quantized)
            self._values[dtype] = value
        elif dtype not in self._values:
            self._values[dtype] = quantized.dequantize(x.dtype).to(dtype)
        return quantized, self._values[dtype]

    def fake_quantize(self, x: Tensor, quantizer: Any) -> Tensor:
        """`quantizer.fake_quantize(x)`, the last one again if nothing changed and no gradient is asked for."""
        if x.requires_grad and torch.is_grad_enabled():
            return quantizer.fake_quantize(x)  # type: ignore[no-any-return]
        if not self._is_last(x, quantizer) or x.dtype not in self._values:
            value = quantizer.fake_quantize_only(x)
            self._keep(x, quantizer, None)
            self._values[x.dtype] = value
        return self._values[x.dtype]

    def _kept(self, x: Tensor, quantizer: Any) -> QuantizedTensor | None:
        return self._quantized if self._is_last(x, quantizer) else None

    def _is_last(self, x: Tensor, quantizer: Any) -> bool:
        return self._source is not None and self._source() is x and self._key == _state(x, quantizer)

    def _keep(self, x: Tensor, quantizer: Any, quantized: KeptT) -> KeptT:
        self.clear()
        self._source, self._key, self._quantized = ref(x), _state(x, quantizer), quantized
        self.quantizations += 1
        return quantized

    def __reduce__(self) -> tuple[Any, ...]:
        return InputSlot, ()  # copies and pickles of a model begin without an input

    def dequantize(self, codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        """The value of kept codes; of the last ones again, since q, k and v go backward one after another."""
        if self._value is None or self._value.dtype != dtype or self._codes is None or self._codes() is not codes:
            self._codes, self._value = ref(codes), dequantize(codes, scale, dtype)
            self.dequantizations += 1
        return self._value

    def clear(self) -> None:
        """Forget the last input, so that its memory can be used."""
        self._source = self._quantized = self._codes = self._value = None
        self._values = {}


def _state(x: Tensor, quantizer: Any) -> tuple[Any, ...]:
    # A tensor made in inference mode counts no versions, so it is never taken for unchanged.
    return (object() if x.is_inference() else x._version, quantizer.params)


def quantized_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    weight_quantizer: Quantizer | None,
    input_quantizer: Quantizer | None,
    cache: WeightCache | None = None,
    slot: InputSlot | None = None,
    processor: Processor | None = None,
) -> Tensor:
    """`linear(Q(x), Q(weight), bias)` in the dtype that autocast asks for, or that of the weight.

    Args:
        x: `[..., C]`.
        weight: latent `[R, C]`.
        weight_quantizer, input_quantizer: either may be None.
        cache: holds the quantized weight between optimizer steps; None quantizes in every pass.
        slot: shares the quantized input with other layers.
        processor: what products on a CPU are chosen for; None is this machine's.
    """
    layer = _Layer(weight_quantizer, input_quantizer, cache, slot or InputSlot(), processor or this_processor(), weight)
    result: Tensor = _QuantizedLinear.apply(x, weight, bias, layer)  # type: ignore[no-untyped-call]
    return result


def compute_dtype(weight: Tensor) -> torch.dtype:
    """The dtype to multiply in: what autocast asks for on this device, else that of the weight."""
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


def quantized_weight(
    weight: Tensor, quantizer: Quantizer | None, cache: WeightCache | None, dtype: torch.dtype
) -> Tensor:
    """Quantized values of a latent weight in `dtype`, detached from the graph."""
    if quantizer is None:
        return weight.detach().to(dtype)
    if cache is not None:
        return cache.value(weight, quantizer, dtype)
    with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
        return quantizer.fake_quantize(weight.detach()).to(dtype)


def codes_pay(weight: Tensor, weight_quantizer: Any, input_quantizer: Any, processor: Processor) -> bool:
    """Whether training multiplies codes of this weight and its input in place of values."""
    if weight_quantizer is None or input_quantizer is None or not input_quantizer.signed:
        return False
    sizes = (input_quantizer.params.group_size, weight_quantizer.params.group_size)
    return multiplies_codes(weight.shape[-1], sizes, compute_dtype(weight), weight.device, processor)


def coded_operands(x: QuantizedTensor, weight: QuantizedTensor) -> CodedOperands:
    """Codes and scales as the kernel takes them; `x` loses its leading axes."""
    rows = CodedMatrix(*(part.reshape(-1, part.shape[-1]) for part in (x.codes, x.scale)))
    return CodedOperands(rows, CodedMatrix(weight.codes, weight.scale))


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


def differentiable_weight(
    weight: Tensor, quantizer: Quantizer | None, cache: WeightCache | None, dtype: torch.dtype
) -> Tensor:
    """The quantized values of a latent weight as part of the graph, in `dtype` where a cache keeps them."""
    if quantizer is None:
        return weight
    if cache is None:
        return quantizer.fake_quantize(weight)
    return WeightValue.apply(weight, quantizer, cache, dtype)  # type: ignore[no-untyped-call,no-any-return]


class _Layer:
    """What the function needs besides tensors.

    Attributes:
        trains: gradients are made. Without, the product is that of a finished model's layers, bit for bit.
        codes_pay: training multiplies codes.
    """

    def __init__(
        self,
        weight_quantizer: Quantizer | None,
        input_quantizer: Quantizer | None,
        cache: WeightCache | None,
        slot: InputSlot,
        processor: Processor,
        weight: Tensor,
    ):
        self.weight_quantizer, self.input_quantizer = weight_quantizer, input_quantizer
        self.cache, self.slot, self.processor, self.dtype = cache, slot, processor, compute_dtype(weight)
        # Checkpointing gives the backward pass another tensor object, which the cache would not know.
        self.latent = None if cache is None else weight
        self.trains = torch.is_grad_enabled()
        self.codes_pay = codes_pay(weight, weight_quantizer, input_quantizer, processor)

    def weight(self, latent: Tensor) -> Tensor:
        """Quantized values of a latent weight `[R, C]` in the dtype of the product, from the cache if there is one."""
        latent = latent if self.latent is None else self.latent
        if self.codes_pay and self.cache is not None and self.weight_quantizer is not None:
            # Training will want codes too; one pass makes both.
            self.cache.quantized(latent, self.weight_quantizer, self.dtype)
        return quantized_weight(latent, self.weight_quantizer, self.cache, self.dtype)

    def product(self, value: Tensor, latent: Tensor, bias: Tensor | None) -> Tensor:
        """The output from values of the input."""
        weight, bias = self.weight(latent), None if bias is None else bias.to(self.dtype)
        if self.trains:
            return linear(value, weight, bias, self.processor)
        return functional.linear(value, weight, bias)

    def product_of_codes(self, x: QuantizedTensor, latent: Tensor, bias: Tensor | None) -> Tensor:
        """The output from codes of the input, in training."""
        assert self.weight_quantizer is not None
        if self.cache is None:
            weight = self.weight_quantizer.quantize(latent.detach())
        else:
            weight = self.cache.quantized(latent, self.weight_quantizer, self.dtype)
        # A view of the product could not be changed in place, which is what some models do.
        result = x.scale.new_empty((*x.codes.shape[:-1], len(weight.codes)), dtype=torch.float32)
        integer_linear(coded_operands(x, weight), bias, out=result.view(-1, len(weight.codes)))
        return result.to(self.dtype)


class _QuantizedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: _Layer) -> Tensor:
        ctx.layer, ctx.dtypes = layer, (x.dtype, weight.dtype, None if bias is None else bias.dtype)
        with torch.autocast(x.device.type, enabled=False):
            if layer.input_quantizer is None:
                value = x.to(layer.dtype)
                ctx.save_for_backward(weight, value)
            elif layer.trains and layer.codes_pay:
                quantized = layer.slot.quantize(x, layer.input_quantizer)
                ctx.save_for_backward(weight, quantized.codes, quantized.scale)
                return layer.product_of_codes(quantized, weight, bias)
            else:
                quantized, value = layer.slot.quantize_dequantize(x, layer.input_quantizer, layer.dtype)
                ctx.save_for_backward(weight, quantized.codes, quantized.scale)
            return layer.product(value, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        layer, (weight, *kept) = ctx.layer, ctx.saved_tensors
        need_input, need_weight, need_bias = ctx.needs_input_grad[:3]
        of_input = of_weight = of_bias = None
        rows = gradient.to(layer.dtype).reshape(-1, weight.shape[0])
        with torch.autocast(gradient.device.type, enabled=False):
            if need_input:
                of_rows = matrix_product(rows, layer.weight(weight), ctx.dtypes[0], layer.processor)
                of_input = of_rows.reshape(*gradient.shape[:-1], weight.shape[1])
            if need_weight:
                value = kept[0] if len(kept) == 1 else layer.slot.dequantize(*kept, ctx.dtypes[0]).to(layer.dtype)
                of_weight = matrix_product(rows.t(), value.reshape(-1, weight.shape[1]), ctx.dtypes[1], layer.processor)
            if need_bias:
                of_bias = rows.sum(dim=0, dtype=ctx.dtypes[2])
        return of_input, of_weight, of_bias, None
