"""The one thing that passes between training, checkpoints and exports: integer codes and their scales; and the gradient
through them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgerazor.kernels import dispatch

TERNARY_BITS = 1.58


@dataclass(frozen=True)
class QuantizedTensor:
    """value[r, c] = codes[r, c] * scale[r, c // group_size] (METHOD 1.1).

    Attributes:
        codes: int8 `[..., C]`; integers in [-qmax, qmax], or down to -qmax-1 for asymmetric quantizers.
        scale: `[..., C / group_size]`; float16 for weights, float32 where it is never stored.
        qmax: int8 `[R]`, the width of each row (1 ternary, 7 int4, 127 int8); `[R, G]` if widths mix inside rows.
            R is the product of the leading axes.
        group_size: columns that share one scale.
    """

    codes: Tensor
    scale: Tensor
    qmax: Tensor
    group_size: int

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The values, in the shape of the codes: multiplied in float32, rounded once to `dtype`."""
        return dispatch.dequantize(self.codes, self.scale, dtype)

    def rows_by_bits(self) -> dict[float, int]:
        """`{nominal bits: number of rows}`, each row counted at its widest group."""
        widest = self.widest_qmax()
        return {nominal_bits(int(q), self.symmetric): int((widest == q).sum()) for q in widest.unique()}

    def bits_per_weight(self) -> float:
        """Nominal bits of the codes plus 16 bits of scale per group (METHOD 2.4)."""
        values, counts = self.qmax.unique(return_counts=True)
        weights = {int(value): int(count) for value, count in zip(values, counts, strict=True)}
        return mean_bits(weights, self.symmetric) + 16 / self.group_size

    @property
    def symmetric(self) -> bool:
        """False if some code is -qmax-1."""
        qmax = self.qmax if self.qmax.ndim == 2 else self.qmax.unsqueeze(-1)
        groups = self.codes.reshape(qmax.shape[0], -1, self.group_size)
        return not bool((groups < -qmax.unsqueeze(-1)).any())

    def widest_qmax(self) -> Tensor:
        """int8 `[R]`: the width a format that knows rows only must give each row."""
        return self.qmax if self.qmax.ndim == 1 else self.qmax.amax(dim=-1)


def quantize_dequantize(x: Tensor, quantizer: Any, dtype: torch.dtype) -> tuple[QuantizedTensor, Tensor]:
    """Codes and scales, and their values rounded to the dtype of `x`, then to `dtype`; detached."""
    quantized, value = quantizer.quantize_dequantize(x.detach())
    return quantized, value.to(dtype)


def straight_through(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """The straight-through estimator: `function(x)` with the gradient of the identity.

    `function` must return a new tensor of the shape of `x`.
    """
    if not (torch.is_grad_enabled() and x.requires_grad):
        return _without_autocast(x, function)  # a graph that nobody asked for costs as much as the rounding
    result: Tensor = _StraightThrough.apply(x, function)  # type: ignore[no-untyped-call]
    return result


def nominal_bits(qmax: int, symmetric: bool = True) -> float:
    """1.58 for the three levels of a ternary row, else the bits of an integer that reaches `qmax`."""
    if qmax == 1 and symmetric:
        return TERNARY_BITS
    return float(qmax.bit_length() + 1)


def mean_bits(weights_by_qmax: Mapping[int, int], symmetric: bool = True) -> float:
    """Nominal bits per weight, scales not counted."""
    total = sum(weights_by_qmax.values())
    return sum(count * nominal_bits(qmax, symmetric) for qmax, count in weights_by_qmax.items()) / total


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        return _without_autocast(x, function)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, None]:
        return gradients[0], None


def _without_autocast(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    if not torch.is_autocast_enabled(x.device.type):
        return function(x)
    with torch.autocast(x.device.type, enabled=False):
        return function(x)
