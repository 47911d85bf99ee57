"""How sure the teacher is, as one number per position, and the mean of it that shares one gamma (METHOD 4.3)."""

import math
from typing import Literal

from torch import Tensor

Scope = Literal["batch", "sequence", "token"]


def entropy_confidence(entropy: Tensor, uniform_support: float, *, cap: bool = False) -> Tensor:
    """1 - entropy / log uniform_support, of any shape; entropy in nats. With `cap` no position falls below 0."""
    no_confidence = math.log(uniform_support)
    return 1 - (entropy.clamp(max=no_confidence) if cap else entropy) / no_confidence


def mean_confidence(confidence: Tensor, mask: Tensor, scope: Scope) -> Tensor:
    """gamma `[batch, seq]`, between 0 and 1: the mean of a confidence over what shares one gamma.

    Args:
        confidence: `[batch, seq]`, finite everywhere.
        mask: bool `[batch, seq]`, the positions that count.
        scope: `batch` takes the mean over live sequences of their means over positions, `sequence` that of each
            sequence, `token` none at all.
    """
    if scope != "token":
        lengths = mask.sum(dim=-1, keepdim=True)
        confidence = (confidence * mask).sum(dim=-1, keepdim=True) / lengths.clamp(min=1)
        if scope == "batch":
            live = lengths > 0
            confidence = (confidence * live).sum() / live.sum().clamp(min=1)
    return confidence.clamp(0, 1).expand(mask.shape)
