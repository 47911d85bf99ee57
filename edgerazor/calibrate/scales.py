"""Scales that make rounding a group cost least, in place of those of its largest or its mean weight."""

import torch
from torch import Tensor

from edgerazor.core.contracts import Quantizer
from edgerazor.kernels.reference import round_signed_scale

# The quantizer's own first, which stays where no other is better, down to a half of it; of none larger would the
# quantizer itself be able to make codes.
FACTORS = tuple(2 ** (-step / 16) for step in range(17))


def best_scale(
    values: Tensor,
    scale: Tensor,
    lowest: Tensor,
    highest: Tensor,
    importance: Tensor,
    quantizer: Quantizer,
) -> Tensor:
    """Of parts of a scale, the one that makes the weighted squared error of rounding to nearest smallest.

    Args:
        values: float32 `[R, size]`, a group of every row.
        scale: `[R]`, of the quantizer; what is found has its dtype, and is rounded as the quantizer rounds scales.
        lowest, highest: codes at most, float32 `[R]`.
        importance: weight of each column's error, float32 `[size]`.
        quantizer: of the matrix.
    """
    kind = getattr(quantizer.params, "scale_dtype", "float16")
    low, high = lowest.unsqueeze(1), highest.unsqueeze(1)
    best, least = scale.float(), torch.full_like(lowest, torch.inf)
    for factor in FACTORS:
        tried = round_signed_scale(scale.float() * factor, kind)
        step = tried.unsqueeze(1)
        codes = torch.minimum(torch.maximum(torch.round(values / step), low), high)
        error = (values - codes * step).square_().mul_(importance).sum(dim=1)
        best, least = torch.where(error < least, tried, best), torch.minimum(error, least)
    return best.to(scale.dtype)
