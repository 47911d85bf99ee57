"""Modules for quantization-aware training. A model's own modules change class in place: names, ties and hooks stay.

The latent weight stays where it was; the forward pass sees `dequantize(quantize(weight))`. Training and evaluation mode
compute the same.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from edgerazor.core.contracts import Quantizer
from edgerazor.core.outputs import Head

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
    """A linear layer with fake-quantized weight and input; either quantizer may be None."""

    weight_quantizer: Quantizer | None
    input_quantizer: Quantizer | None

    def projection(self) -> Head:
        weight = self.weight if self.weight_quantizer is None else self.weight_quantizer.fake_quantize(self.weight)
        return Head(weight, self.bias, None if self.input_quantizer is None else self.input_quantizer.fake_quantize)


class QuantEmbedding(nn.Embedding):
    """An embedding whose looked-up rows are quantized, or whose table is where rows depend on each other."""

    weight_quantizer: Quantizer

    def forward(self, input: Tensor) -> Tensor:
        if not self.weight_quantizer.rows_independent:
            return functional.embedding(input, self.weight_quantizer.fake_quantize(self.weight), **self._options())
        return self.weight_quantizer.fake_quantize(functional.embedding(input, self.weight, **self._options()))

    def _options(self) -> dict[str, Any]:
        return {
            "padding_idx": self.padding_idx,
            "max_norm": self.max_norm,
            "norm_type": self.norm_type,
            "scale_grad_by_freq": self.scale_grad_by_freq,
            "sparse": self.sparse,
        }


def make_linear(module: nn.Linear, weight: Quantizer | None, activation: Quantizer | None) -> None:
    """Turn a linear layer into a `QuantLinear` in place."""
    module.__class__ = QuantLinear
    module.weight_quantizer = weight  # type: ignore[assignment]
    module.input_quantizer = activation  # type: ignore[assignment]


def make_embedding(module: nn.Embedding, weight: Quantizer) -> None:
    """Turn an embedding into a `QuantEmbedding` in place."""
    module.__class__ = QuantEmbedding
    module.weight_quantizer = weight  # type: ignore[assignment]
