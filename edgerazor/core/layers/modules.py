"""Modules for quantization-aware training. A model's own modules change class in place: names, ties and hooks stay.

The latent weight stays where it was; the forward pass sees `dequantize(quantize(weight))`. Training and evaluation mode
compute the same; without gradients the result is that of the packed modules, bit for bit.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgerazor.core.contracts import Quantizer
from edgerazor.core.layers.quantized_linear import (
    InputSlot,
    WeightValue,
    coded_operands,
    codes_pay,
    compute_dtype,
    quantized_linear,
)
from edgerazor.core.layers.weight_cache import WeightCache
from edgerazor.core.outputs import Head
from edgerazor.kernels.cpu_products import CodedOperands
from edgerazor.kernels.processor import Processor, this_processor

Interceptor = Callable[[Tensor, Head], Tensor]


class Projecting:
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


class QuantLinear(Projecting, nn.Linear):
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
        weight = _differentiable(self.weight, self.weight_quantizer, self.weight_cache, compute_dtype(self.weight))
        # The data of an offloaded parameter leaves the device after the forward pass; an alias stays.
        weight, bias = (one if one is None or one.requires_grad else one.detach() for one in (weight, self.bias))
        quantize_input = None if self.input_quantizer is None else self.input_quantizer.fake_quantize
        return Head(weight, bias, quantize_input, codes)

    def _codes(self) -> Callable[[Tensor], CodedOperands] | None:
        """What `Head.codes` is; the weight's are made at once, since its values are a by-product."""
        cache, of_weight, of_input = self.weight_cache, self.weight_quantizer, self.input_quantizer
        if cache is None or of_weight is None or of_input is None or not torch.is_grad_enabled():
            return None
        if not codes_pay(self.weight, of_weight, of_input, self.processor):
            return None
        weight = cache.quantized(self.weight, of_weight, compute_dtype(self.weight))
        return lambda hidden: coded_operands(of_input.quantize(hidden.detach()), weight)


class QuantEmbedding(nn.Embedding):
    """An embedding whose looked-up rows are quantized, or whose table is where rows depend on each other."""

    weight_quantizer: Quantizer
    weight_cache: WeightCache | None = None

    def forward(self, input: Tensor) -> Tensor:
        if not self.weight_quantizer.rows_independent:
            table = _differentiable(self.weight, self.weight_quantizer, self.weight_cache, self.weight.dtype)
            return functional.embedding(input, table, **self._options())
        return self.weight_quantizer.fake_quantize(functional.embedding(input, self.weight, **self._options()))

    def _options(self) -> dict[str, Any]:
        return {
            "padding_idx": self.padding_idx,
            "max_norm": self.max_norm,
            "norm_type": self.norm_type,
            "scale_grad_by_freq": self.scale_grad_by_freq,
            "sparse": self.sparse,
        }


def _differentiable(
    weight: Tensor, quantizer: Quantizer | None, cache: WeightCache | None, dtype: torch.dtype
) -> Tensor:
    """The quantized weight as part of the graph, in `dtype` where a cache keeps it."""
    if quantizer is None:
        return weight
    if cache is None:
        return quantizer.fake_quantize(weight)
    return WeightValue.apply(weight, quantizer, cache, dtype)  # type: ignore[no-untyped-call,no-any-return]


def make_linear(
    module: nn.Linear,
    weight: Quantizer | None,
    activation: Quantizer | None,
    slot: InputSlot | None = None,
    processor: Processor | None = None,
) -> None:
    """Turn a linear layer into a `QuantLinear` in place.

    Args:
        weight, activation: quantizers of weight and input; either may be None.
        slot: layers that have one in common share the quantized input.
        processor: what products on a CPU are chosen for; None is this machine's.
    """
    module.__class__ = QuantLinear
    module.weight_quantizer = weight  # type: ignore[assignment]
    module.input_quantizer = activation  # type: ignore[assignment]
    module.input_slot = slot  # type: ignore[assignment]
    module.processor = processor or this_processor()  # type: ignore[assignment]


def make_embedding(module: nn.Embedding, weight: Quantizer) -> None:
    """Turn an embedding into a `QuantEmbedding` in place."""
    module.__class__ = QuantEmbedding
    module.weight_quantizer = weight  # type: ignore[assignment]
