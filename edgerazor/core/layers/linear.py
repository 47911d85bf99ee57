"""Linear layers: quantization-aware, packed, and tied to the packed weight of another layer.

In training a model's own module changes class in place and the latent weight stays where it was; the forward pass sees
`dequantize(quantize(weight))`. Training and evaluation mode compute the same; without gradients the result is that of
the packed module, bit for bit.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgerazor.core.contracts import Quantizer
from edgerazor.core.layers.kind import LayerKind
from edgerazor.core.layers.packed import PackedWeight, TiedPackedWeight
from edgerazor.core.layers.quantized_linear import (
    InputSlot,
    coded_operands,
    codes_pay,
    compute_dtype,
    differentiable_weight,
    quantized_linear,
)
from edgerazor.core.layers.weight_cache import WeightCache
from edgerazor.core.outputs import Head
from edgerazor.core.packing import Layout
from edgerazor.kernels.cpu_products import CodedOperands
from edgerazor.kernels.processor import Processor, this_processor

Interceptor = Callable[[Tensor, Head], Tensor]


class ProjectionLayer:
    """A linear layer whose product can be taken over, so that a loss may run inside the forward of the output head.

    While `interceptor` is set it is called with the input and the head, and its result stands for the output.
    """

    interceptor: Interceptor | None = None

    def projection(self) -> Head:
        """Weight, bias and input quantizer as this forward pass uses them."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        head = self.projection()
        if self.interceptor is not None:
            return self.interceptor(x, head)
        return head.logits(x)


class QuantLinear(ProjectionLayer, nn.Linear):
    """A linear layer with fake-quantized weight and input; either quantizer may be None.

    Attributes:
        weight_cache: set while `cached_weights` is entered.
        input_slot: shared by the layers of a model; None for a layer of its own.
        processor: what products on a CPU are chosen for.
    """

    weight_quantizer: Quantizer | None
    input_quantizer: Quantizer | None
    weight_cache: WeightCache | None = None
    input_slot: InputSlot | None = None
    processor: Processor

    def forward(self, x: Tensor) -> Tensor:
        if self.interceptor is not None:
            if self.input_slot is not None:
                self.input_slot.clear()  # the output head comes last
            return self.interceptor(x, self.projection())
        return quantized_linear(
            x,
            self.weight,
            self.bias,
            weight_quantizer=self.weight_quantizer,
            input_quantizer=self.input_quantizer,
            cache=self.weight_cache,
            slot=self.input_slot,
            processor=self.processor,
        )

    def projection(self) -> Head:
        codes = self._codes()
        weight = differentiable_weight(
            self.weight, self.weight_quantizer, self.weight_cache, compute_dtype(self.weight)
        )
        # The data of an offloaded parameter leaves the device after the forward pass; an alias stays.
        weight, bias = (
            tensor if tensor is None or tensor.requires_grad else tensor.detach() for tensor in (weight, self.bias)
        )
        quantize_input = None if self.input_quantizer is None else self.input_quantizer.fake_quantize
        return Head(weight, bias, quantize_input, codes)

    def _codes(self) -> Callable[[Tensor], CodedOperands] | None:
        """Codes of input and weight for `Head.codes`; the weight's are made at once, its values being a by-product."""
        cache, of_weight, of_input = self.weight_cache, self.weight_quantizer, self.input_quantizer
        if cache is None or of_weight is None or of_input is None or not torch.is_grad_enabled():
            return None
        if not codes_pay(self.weight, of_weight, of_input, self.processor):
            return None
        weight = cache.quantized(self.weight, of_weight, compute_dtype(self.weight))
        return lambda hidden: coded_operands(of_input.quantize(hidden.detach()), weight)


def make_linear(
    module: nn.Linear,
    weight: Quantizer | None,
    activation: Quantizer | None,
    slot: InputSlot | None = None,
    processor: Processor | None = None,
) -> None:
    """Turn a linear layer into a `QuantLinear` in place.

    Args:
        module: the layer.
        weight, activation: quantizers of weight and input; either may be None.
        slot: layers that have one in common share the quantized input.
        processor: what products on a CPU are chosen for; None is this machine's.
    """
    module.__class__ = QuantLinear
    module.weight_quantizer = weight  # type: ignore[assignment]
    module.input_quantizer = activation  # type: ignore[assignment]
    module.input_slot = slot  # type: ignore[assignment]
    module.processor = processor or this_processor()  # type: ignore[assignment]


class PackedProjection(ProjectionLayer, nn.Module):
    """What packed linear layers share; `input_quantizer` is None where activations are not quantized."""

    weight: Any
    bias: nn.Parameter | None
    input_quantizer: Quantizer | None = None
    input_slot: InputSlot | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.interceptor is not None:
            return self.interceptor(x, self.projection())
        if self.input_quantizer is not None:
            x = self._quantized(x)
        # Parameters are found fastest in their own dictionary.
        return functional.linear(x, self.weight, self._parameters["bias"])

    def projection(self) -> Head:
        return Head(self.weight, self.bias, None if self.input_quantizer is None else self._quantized)

    def _quantized(self, x: Tensor) -> Tensor:
        assert self.input_quantizer is not None
        if self.input_slot is None:
            return self.input_quantizer.fake_quantize(x)
        return self.input_slot.fake_quantize(x, self.input_quantizer)


class PackedLinear(PackedProjection, PackedWeight):
    """A linear layer from packed codes."""

    def __init__(self, layout: Layout, tensors: Mapping[str, Tensor], dtype: torch.dtype, shape: tuple[int, int]):
        super().__init__(layout, tensors, dtype, shape)
        self.register_parameter("bias", None)

    @property
    def in_features(self) -> int:
        return self.columns

    @property
    def out_features(self) -> int:
        return self.rows


class TiedPackedLinear(PackedProjection, TiedPackedWeight):
    """An output head whose weight is that of a packed embedding."""

    def __init__(self, owner: PackedWeight):
        super().__init__(owner)
        self.register_parameter("bias", None)

    @property
    def in_features(self) -> int:
        return self.owner.columns

    @property
    def out_features(self) -> int:
        return self.owner.rows


class Linear(LayerKind):
    """`nn.Linear`, the output head among them."""

    name: ClassVar = "linear"
    packed: ClassVar = PackedLinear
    tied_packed: ClassVar = TiedPackedLinear

    def matches(self, layer: nn.Module) -> bool:
        return isinstance(layer, nn.Linear)

    def is_plain(self, layer: nn.Module) -> bool:
        return type(layer) is nn.Linear or (self.matches(layer) and isinstance(layer, ProjectionLayer))

    def make_trainable(
        self, layer: nn.Linear, quantizer: Quantizer, activation: Quantizer | None, slot: InputSlot | None
    ) -> None:
        make_linear(layer, quantizer, activation, slot)

    def complete(self, packed: Any, layer: nn.Linear, activation: Quantizer | None) -> None:
        packed._parameters["bias"], packed.__dict__["input_quantizer"] = layer.bias, activation

    def tied(self, layer: nn.Linear, owner: PackedWeight, activation: Quantizer | None) -> TiedPackedWeight:
        head: Any = super().tied(layer, owner, activation)
        head.bias, head.input_quantizer = layer.bias, activation
        return head  # type: ignore[no-any-return]

    def restore(self, model: nn.Module, name: str, weight: nn.Parameter) -> None:
        bias: Any = model.get_submodule(name).bias
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
        linear.weight = weight
        if bias is not None:
            linear.bias = bias
        model.set_submodule(name, linear)

    def share_inputs(self, module: nn.Module, slot: InputSlot) -> None:
        if isinstance(module, PackedLinear | TiedPackedLinear):
            module.__dict__["input_slot"] = slot

    def leave_inputs(self, module: nn.Module) -> None:
        if isinstance(module, (PackedLinear, TiedPackedLinear)):
            module.input_quantizer = None
