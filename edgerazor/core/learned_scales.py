"""A quantizer of one weight whose scales are trained (LSQ: Esser et al. 2019, arXiv:1902.08153)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edgerazor.core.contracts import Quantizer
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.kernels import reference


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
        self.symmetric, self._quantizer, self.qmax = quantizer.symmetric, quantizer, start.qmax
        self.start, self.group_size = start.scale.float(), start.group_size
        self.factors = nn.Parameter(torch.ones_like(self.start))

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
        groups, scale, lowest, highest = self._grid(x)
        codes = reference.round_codes(groups, scale, lowest, highest).nan_to_num_(0.0).to(torch.int8)
        stored = scale.squeeze(-1).to(reference.stored_dtype(self.params.scale_dtype))
        return QuantizedTensor(codes.reshape(x.shape), stored, self.qmax, self.group_size)

    @torch.no_grad()
    def set_gradient(self, x: Tensor, gradient: Tensor) -> None:
        """Give the factors their gradient, which follows from that of the values: the one that `x` itself got.

        A value changes with its scale by `code - x / scale`, or by its code where it is clamped.
        """
        groups, scale, lowest, highest = self._grid(x)
        steps = groups / scale
        slope = steps.clamp(lowest, highest)
        inside = steps == slope
        slope.round_().sub_(steps.mul_(inside))
        of_scale = torch.linalg.vecdot(gradient.float().reshape(groups.shape), slope)
        self.factors.grad = of_scale * self.start

    def _grid(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Groups `[R, G, g]`; scale, lowest and highest code, each `[R, G or 1, 1]`; all float32."""
        scale = reference.round_scale(self.start * self.factors.detach(), self.params.scale_dtype).unsqueeze(-1)
        highest = self.qmax.float().reshape(len(self.qmax), -1, 1)
        lowest = -highest - int(not self.symmetric)
        return reference.split_groups(x, self.group_size), scale, lowest, highest
