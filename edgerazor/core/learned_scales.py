"""A quantizer of one weight whose scales are trained (LSQ: Esser et al. 2019, arXiv:1902.08153)."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from edgerazor.core.contracts import Quantizer
from edgerazor.core.tensor import QuantizedTensor, straight_through
from edgerazor.kernels import dispatch, reference
from edgerazor.kernels.reference import GroupRule

_SMALLEST_FACTOR = 2.0**-24  # no scale is zero, whatever dtype it is stored in


class LearnedScales(Quantizer):
    """The grid of another quantizer with scales of its own: those of the data, times factors that are trained.

    Scales are rounded as they will be stored before codes are made of them, so exports hold what training computed.

    Args:
        quantizer: gives the range of codes and how scales are stored.
        start: what `quantizer` makes of the weight `[R, C]` where training begins.

    Attributes:
        start: scales `[R, G]` where training begins, float32.
        factors: parameter `[R, G]`, float32, 1 at the beginning.
        qmax: int8 `[R]` or `[R, G]`; it stays where a quantizer would find other widths in other weights.
    """

    rows_independent = False  # scales belong to rows of one weight

    def __init__(self, quantizer: Quantizer, start: QuantizedTensor):
        super().__init__(quantizer.params)
        self.symmetric, self.signed_scale = quantizer.symmetric, quantizer.signed_scale
        self._quantizer, self.qmax = quantizer, start.qmax
        self.start, self.group_size = start.scale.float(), start.group_size
        self.factors = nn.Parameter(torch.ones_like(self.start))
        widths = quantizer.widths(tuple(start.codes.shape))
        # A number where all rows have it, which is faster.
        self._only = next(iter(widths)) if len(widths) == 1 else None

    def to(self, device: torch.device) -> None:
        """Move the scales to the device of their weight."""
        for part in ("start", "qmax"):
            setattr(self, part, getattr(self, part).to(device))
        self.factors.data = self.factors.data.to(device)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """As the quantizer whose grid it is."""
        self._quantizer.check_shape(shape)

    def widths(self, shape: tuple[int, ...]) -> Mapping[int, int]:
        """As the quantizer whose grid it is."""
        return self._quantizer.widths(shape)

    @torch.no_grad()
    def quantize(self, x: Tensor) -> QuantizedTensor:
        """Codes of `x [R, C]` with the scales as they are now."""
        return self._quantized(*dispatch.quantize(x, self._rule(), self.group_size))

    @torch.no_grad()
    def quantize_dequantize(self, x: Tensor) -> tuple[QuantizedTensor, Tensor]:
        """Codes of `x` with the scales as they are now, and the values in its dtype, in one pass."""
        codes, scale, value = dispatch.quantize_dequantize(x, self._rule(), self.group_size)
        return self._quantized(codes, scale), value

    def fake_quantize(self, x: Tensor) -> Tensor:
        """`quantize(x).dequantize(x.dtype)` bit for bit; the gradient passes straight through."""
        return straight_through(x, lambda values: dispatch.fake_quantize(values, self._rule(), self.group_size))

    @torch.no_grad()
    def set_gradient(self, x: Tensor, gradient: Tensor) -> None:
        """Give the factors their gradient, which follows from that of the values: the one that `x` itself got."""
        of_scale = dispatch.scale_gradient(x, gradient, self._rule(), self.group_size)
        self.factors.grad = of_scale.mul_(self.start)

    def _rule(self) -> GroupRule:
        # A factor may fall below zero; the sign of its scale stays.
        factors = self.factors.detach().clamp_min(_SMALLEST_FACTOR)
        scale = reference.round_signed_scale(self.start * factors, self.params.scale_dtype)
        stored = scale.to(reference.stored_dtype(self.params.scale_dtype))
        kind: Literal["given", "given_asymmetric"] = "given" if self.symmetric else "given_asymmetric"
        highest = self.qmax if self._only is None else self._only
        return GroupRule(kind, highest, scale_dtype=self.params.scale_dtype, given=stored)

    def _quantized(self, codes: Tensor, scale: Tensor) -> QuantizedTensor:
        return QuantizedTensor(codes, scale, self.qmax, self.group_size)
