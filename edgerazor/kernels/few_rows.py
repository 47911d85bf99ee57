"""Fake quantization of few numbers on a CPU, as in decoding, where a call costs more than its arithmetic: few calls.

The bits of `reference.fake_quantize` for absmax rules of one width, which activations, keys and values have.
"""

import torch
from torch import Tensor

from edgerazor.kernels.reference import FLOOR, LARGEST_SCALE, LARGEST_SHARED_SCALE, SMALLEST_SCALE, GroupRule

MOST_ELEMENTS = 2**14


class FewRows:
    """Fake quantization by one rule.

    Args:
        rule: absmax, its qmax a number.
        group_size: columns that share a scale; None is one group per row.
    """

    def __init__(self, rule: GroupRule, group_size: int | None):
        assert rule.scale == "absmax" and not isinstance(rule.qmax, Tensor)
        self._qmax, self._group_size = rule.qmax, group_size
        self._rounded = rule.scale_dtype != "float32"
        self._dtype, self._largest = (
            (torch.bfloat16, LARGEST_SHARED_SCALE)
            if rule.scale_dtype == "float16_bfloat16"
            else (torch.float16, LARGEST_SCALE)
        )
        # Models are built under a default device and a default dtype of their own.
        with torch.inference_mode(False):
            self._divisor = torch.tensor(float(rule.qmax), dtype=torch.float32, device="cpu")

    def takes(self, x: Tensor) -> bool:
        """Whether `__call__` is for this tensor."""
        if x.numel() > MOST_ELEMENTS or not x.is_cpu or torch.compiler.is_compiling():
            return False
        return self._group_size is None or x.shape[-1] % self._group_size == 0

    def __call__(self, x: Tensor) -> Tensor:
        """Values of `x [..., C]` after quantization, in its shape and dtype."""
        groups = x.float().reshape(-1, self._group_size or x.shape[-1])
        scale = groups.abs().amax(-1, True)
        if not self._rounded:
            scale.clamp_min_(FLOOR).div_(self._divisor)
            # |x| / scale exceeds qmax by rounding errors only: there is nothing to clamp.
            return torch.div(groups, scale).round_().mul_(scale).view_as(x).type_as(x)
        # The smallest stored scale is above the floor divided by any qmax.
        scale = scale.div_(self._divisor).clamp_(SMALLEST_SCALE, self._largest).to(self._dtype).float()
        return torch.div(groups, scale).round_().clamp_(-self._qmax, self._qmax).mul_(scale).view_as(x).type_as(x)
