"""`unsigned_int`: integers for activations, twice as fine where a group has no negative number, as a ReLU leaves it.

Krishnamoorthi 2018, arXiv:1806.08342, section 3: outputs of a ReLU are quantized without a sign.
"""

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

from edgerazor.core.contracts import Quantizer
from edgerazor.core.group_sizes import check_group_size
from edgerazor.core.tensor import QuantizedTensor, straight_through
from edgerazor.kernels.reference import FLOOR, round_codes, split_groups
from edgerazor.plugins.quantizers.params import UnsignedIntParams


class UnsignedIntQuantizer(Quantizer):
    """A group without a negative number has scale = max(max x, 1e-5) / (2^bits - 1) and codes from 0 to 2^bits - 1; any
    other group is that of `int`: scale = max(max |x|, 1e-5) / qmax, codes in [-qmax, qmax], qmax = 2^(bits - 1) - 1.

    Computed in float32, ties to even, by true division, as all quantizers. Codes are int16, scales float32: neither is
    stored.
    """

    params: UnsignedIntParams
    signed = False

    def __init__(self, params: UnsignedIntParams):
        super().__init__(params)
        self.qmax = 2 ** (params.bits - 1) - 1

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise PlanError unless the group size divides the columns."""
        check_group_size(shape[-1], self.params.group_size)

    def widths(self, shape: tuple[int, ...]) -> Mapping[int, int]:
        return {self.qmax: prod(shape)}

    @torch.no_grad()
    def quantize(self, x: Tensor) -> QuantizedTensor:
        """Codes and scales of `x [..., C]`, any float dtype."""
        return self.quantize_dequantize(x)[0]

    @torch.no_grad()
    def quantize_dequantize(self, x: Tensor) -> tuple[QuantizedTensor, Tensor]:
        """Codes and scales, and the values they stand for in the dtype of `x`."""
        codes, scale = self._codes(x)
        value = (codes * scale).reshape(x.shape).to(x.dtype)
        integers = codes.nan_to_num(0.0).to(torch.int16).reshape(x.shape)
        rows = x.shape[:-1].numel()
        qmax = torch.full((rows,), self.qmax, dtype=torch.int8, device=x.device)
        return QuantizedTensor(integers, scale.squeeze(-1), qmax, codes.shape[-1]), value

    def fake_quantize(self, x: Tensor) -> Tensor:
        """`quantize(x).dequantize(x.dtype)` bit for bit; the gradient passes straight through."""
        return straight_through(x, self._fake_quantize)

    def _fake_quantize(self, x: Tensor) -> Tensor:
        codes, scale = self._codes(x)
        return codes.mul_(scale).reshape(x.shape).to(x.dtype)

    def _codes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Codes `[..., G, g]` and scale `[..., G, 1]`, float32."""
        self.check_shape(x.shape)
        groups = split_groups(x, self.params.group_size)
        highest, lowest = groups.amax(dim=-1, keepdim=True), groups.amin(dim=-1, keepdim=True)
        is_unsigned = lowest >= 0
        largest = torch.maximum(highest, -lowest).clamp_(min=FLOOR)
        levels = torch.where(is_unsigned, float(2 * self.qmax + 1), float(self.qmax))
        scale = largest / levels
        return round_codes(groups, scale, torch.where(is_unsigned, 0.0, -levels), levels), scale
