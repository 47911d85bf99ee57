"""Cosine similarity of rows, in float32 (METHOD 4.5)."""

from torch import Tensor
from torch.nn import functional

SMALLEST_NORM = 1e-8


def row_cosine(a: Tensor, b: Tensor) -> Tensor:
    """float32 `[...]` of `a, b [..., C]`: dot(a, b) / (|a| |b|), each norm at least 1e-8."""
    return functional.cosine_similarity(a.float(), b.float(), dim=-1, eps=SMALLEST_NORM)
