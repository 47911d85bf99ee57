"""Convolutions: quantization-aware and packed. A row is an output channel, its columns the inputs under one kernel.

The weight `[out, in / groups, *kernel]` reads as the matrix `[out, in / groups * kernel]` that an im2col product would
use; the convolution itself is torch's own, on the same values in training and from codes.
"""

from collections.abc import Mapping
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgerazor.core.contracts import Quantizer
from edgerazor.core.layers.kind import LayerKind, of_whole_rows
from edgerazor.core.layers.matrices import Matrices
from edgerazor.core.layers.packed import PackedWeight
from edgerazor.core.layers.quantized_linear import InputSlot, differentiable_weight
from edgerazor.core.layers.weight_cache import WeightCache
from edgerazor.core.packing import Layout

Convolution = nn.Conv1d | nn.Conv2d


class QuantConvolution:
    """Mixed into a convolution: weight and input are fake-quantized; the input over its channels, place by place.

    Attributes:
        weight_quantizer: of the matrix that the weight reads as; None: the weight is used as it is.
        values_quantizer: the same, of the weight in its own shape.
    """

    weight_quantizer: Quantizer | None
    values_quantizer: Quantizer
    input_quantizer: Quantizer | None
    weight_cache: WeightCache | None = None

    def forward(self: Any, x: Tensor) -> Tensor:
        """`[batch, out, *places]` of `[batch, in, *places]`, without the batch as well."""
        quantizer = None if self.weight_quantizer is None else self.values_quantizer
        values = differentiable_weight(self.weight, quantizer, self.weight_cache, self.weight.dtype)
        return _convolved(self, _quantized(x, self), values, self.bias)


class QuantConv1d(QuantConvolution, nn.Conv1d):
    """A convolution over one axis that is quantized in training."""


class QuantConv2d(QuantConvolution, nn.Conv2d):
    """A convolution over two axes that is quantized in training."""


def _convolved(layer: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What a convolution computes with this weight, its stride, padding, dilation and groups."""
    return layer._conv_forward(x, weight, bias)  # type: ignore[no-any-return]


def _quantized(x: Tensor, layer: Any) -> Tensor:
    """The input of a layer, quantized over its channels if the layer has a quantizer for it."""
    if layer.input_quantizer is None:
        return x
    channels = -layer.places - 1
    rows = x.movedim(channels, -1).contiguous()
    return layer.input_quantizer.fake_quantize(rows).movedim(-1, channels)  # type: ignore[no-any-return]


class PackedConv(PackedWeight):
    """A convolution from packed codes.

    Attributes:
        shape: of the weight.
        input_quantizer: None where activations are not quantized.
    """

    input_quantizer: Quantizer | None = None
    bias: nn.Parameter | None
    shape: tuple[int, ...]

    def __init__(self, layout: Layout, tensors: Mapping[str, Tensor], dtype: torch.dtype, shape: tuple[int, int]):
        super().__init__(layout, tensors, dtype, shape)
        self.register_parameter("bias", None)
        # Inside a list, so that it is not registered as a child.
        self._geometry: list[Any] = []

    @property
    def convolution(self) -> Any:
        """An ordinary layer of the same stride, padding, dilation and groups that holds no weight."""
        return self._geometry[0]

    @property
    def places(self) -> int:
        """Axes that the kernel moves along."""
        return len(self.shape) - 2

    def forward(self, x: Tensor) -> Tensor:
        return _convolved(self.convolution, _quantized(x, self), self.weight.view(self.shape), self.bias)

    def take_geometry(self, layer: Convolution) -> None:
        """Compute from now on as `layer` does."""
        self._geometry, self.shape = [_without_weight(layer)], tuple(layer.weight.shape)


class Conv(LayerKind):
    """`nn.Conv1d` and `nn.Conv2d`, with groups or depthwise, of any stride, dilation and padding mode."""

    name: ClassVar = "conv"
    packed: ClassVar = PackedConv
    rows_may_be_whole: ClassVar = True

    def matches(self, layer: nn.Module) -> bool:
        return isinstance(layer, Convolution)

    def is_plain(self, layer: nn.Module) -> bool:
        return type(layer) in (nn.Conv1d, nn.Conv2d) or isinstance(layer, QuantConvolution)

    def matrices(self, layer: Convolution) -> Matrices:
        shape = tuple(layer.weight.shape)
        return Matrices(shape, rows=shape[0], columns=prod(shape[1:]))

    def input_columns(self, layer: Convolution) -> int:
        return layer.in_channels

    def product_rows(self, layer: Any, x: Tensor) -> Tensor | None:
        if layer.groups > 1:
            return None
        x, kernel = _quantized(x, layer), layer.kernel_size
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x = functional.pad(x, layer._reversed_padding_repeated_twice, mode)
        steps = {"dilation": layer.dilation, "stride": layer.stride}
        if layer.places == 1:  # unfold knows two axes
            x, kernel = x.unsqueeze(-2), (1, *kernel)
            steps = {key: (1, *value) for key, value in steps.items()}
        columns = functional.unfold(x, kernel, **steps)
        return columns.transpose(-1, -2).reshape(-1, columns.shape[-2])

    def make_trainable(
        self, layer: Any, quantizer: Quantizer, activation: Quantizer | None, slot: InputSlot | None
    ) -> None:
        layer.__class__ = QuantConv1d if isinstance(layer, nn.Conv1d) else QuantConv2d
        layer.weight_quantizer = quantizer
        layer.values_quantizer = self.matrices(layer).quantizer(quantizer)
        layer.input_quantizer, layer.places = _of_channels(activation, layer), layer.weight.ndim - 2

    def complete(self, packed: Any, layer: Convolution, activation: Quantizer | None) -> None:
        packed.take_geometry(layer)
        packed.bias, packed.input_quantizer = layer.bias, _of_channels(activation, layer)

    def values(self, packed: Any, dtype: torch.dtype) -> Tensor:
        return super().values(packed, dtype).view(packed.shape)

    def restore(self, model: nn.Module, name: str, weight: nn.Parameter) -> None:
        packed: Any = model.get_submodule(name)
        layer = _without_weight(packed.convolution)
        layer._parameters = {"weight": weight, "bias": packed.bias}
        model.set_submodule(name, layer)

    def leave_inputs(self, module: nn.Module) -> None:
        if isinstance(module, PackedConv):
            module.input_quantizer = None


def _without_weight(layer: Convolution) -> Convolution:
    """An ordinary layer of the same stride, padding, dilation and groups."""
    kind: Any = nn.Conv1d if isinstance(layer, nn.Conv1d) else nn.Conv2d
    places = {key: getattr(layer, key) for key in ("stride", "padding", "dilation", "groups", "padding_mode")}
    empty = kind(layer.in_channels, layer.out_channels, layer.kernel_size, bias=False, device="meta", **places)
    empty._parameters = {"weight": None, "bias": None}
    return empty  # type: ignore[no-any-return]


def _of_channels(activation: Quantizer | None, layer: Convolution) -> Quantizer | None:
    """The quantizer of the inputs; where no usual group divides the channels, one scale for all of them."""
    return None if activation is None else of_whole_rows(activation, layer.in_channels)
