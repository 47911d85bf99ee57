"""e2m1: one sign bit, two exponent bits, one mantissa bit. In half steps its magnitudes are 0, 1, 2, 3, 4, 6, 8, 12.

edgerazor keeps integer codes, so a level that is not evenly spaced is a code among more of them: codes reach qmax 12.
"""

from math import prod

import torch

from edgerazor import QuantizedTensor, Quantizer
from edgerazor.core.group_sizes import check_group_size

QMAX = 12


class FP4(Quantizer):
    """scale = max |x| / 12, codes by rounding to the nearest level, ties to the one with an even mantissa."""

    def check_shape(self, shape):
        check_group_size(shape[-1], self.params.group_size)

    def widths(self, shape):
        return {QMAX: prod(shape)}

    @torch.no_grad()
    def quantize(self, x):
        columns = x.shape[-1]
        size = self.params.group_size or columns
        groups = x.float().reshape(*x.shape[:-1], columns // size, size)
        scale = (groups.abs().amax(dim=-1, keepdim=True).clamp(min=1e-5) / QMAX).clamp(max=65504)
        if self.params.scale_dtype == "float16":
            scale = scale.clamp(min=2.0**-14).half()
        codes = round_to_e2m1(groups / scale.float()).nan_to_num(0.0).to(torch.int8).reshape(x.shape)
        qmax = torch.full((x.shape[:-1].numel(),), QMAX, dtype=torch.int8, device=x.device)
        return QuantizedTensor(codes, scale.squeeze(-1), qmax, size)


def round_to_e2m1(values):
    """The nearest of 0, 1, 2, 3, 4, 6, 8, 12 with the sign of each value; the spacing doubles at 4 and at 8."""
    magnitudes = values.abs()
    spacing = torch.where(magnitudes < 4, 1.0, torch.where(magnitudes < 8, 2.0, 4.0))
    return ((values / spacing).round() * spacing).clamp(-QMAX, QMAX)
