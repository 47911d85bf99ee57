"""The row kernels of `divergence`, compiled by torch.compile for CPUs: three passes over a few rows instead of twenty.

Only the first use of a dtype, temperature and vocabulary compiles, which takes seconds and a C++ compiler. Sums of a
row are taken in parts; the results are those of `divergence` within float32's rounding.
"""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from edgerazor.kernels import divergence
from edgerazor.kernels.compiled import run_compiled
from edgerazor.kernels.divergence import RowStatistics, RowWeights

BLOCK_BYTES = 2**22
FEWEST_ROWS = 8
_PARTS = 32


def teacher_row_statistics(u: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Entropy and label log probability of teacher rows, to 1e-6 those of `divergence.teacher_row_statistics`."""
    entropy, label = _in_blocks(_teacher_code, divergence.teacher_row_statistics, u, labels)
    return entropy, label


def row_statistics(z: Tensor, u: Tensor | None, labels: Tensor, temperature: float = 1.0) -> RowStatistics:
    """Divergences and cross entropy of rows, to 1e-6 those of `divergence.row_statistics`."""
    eager = partial(divergence.row_statistics, temperature=temperature)
    if u is None:
        return eager(z, None, labels)
    return RowStatistics(*_in_blocks(_statistics_code(temperature), eager, z, u, labels))


def row_gradient(
    z: Tensor,
    u: Tensor | None,
    labels: Tensor,
    weights: RowWeights,
    temperature: float = 1.0,
    *,
    out: Tensor | None = None,
) -> tuple[Tensor, RowStatistics]:
    """Gradient and statistics of rows, to 1e-6 those of `divergence.row_gradient`."""
    if u is None:
        return divergence.row_gradient(z, u, labels, weights, temperature, out=out)
    gradient = torch.empty_like(z) if out is None else out

    # A tensor that is read and written comes once, or the compiler would have to sort out who shares memory.
    written = () if gradient is z else (gradient,)

    def eager(z: Tensor, u: Tensor, labels: Tensor, *columns: Tensor) -> RowStatistics:
        (*factors, place) = columns if written else (*columns, z)
        return divergence.row_gradient(z, u, labels, RowWeights(*factors), temperature, out=place)[1]

    statistics = _in_blocks(_gradient_code(temperature), eager, z, u, labels, *weights, *written)
    return gradient, RowStatistics(*statistics)


def _in_blocks(code: Callable[..., Any], eager: Callable[..., Any], *tensors: Tensor) -> list[Tensor]:
    """Columns of results of a few rows at a time, whose intermediate results fit the processor's caches."""
    rows, width = tensors[0].shape
    step = max(FEWEST_ROWS, BLOCK_BYTES * torch.get_num_threads() // (4 * width))
    parts = []
    for start in range(0, max(rows, 1), step):
        some = [tensor[start : start + step] for tensor in tensors]
        parts.append(run_compiled(code, *some) if len(some[0]) >= FEWEST_ROWS else eager(*some))
    return [torch.cat(column) for column in zip(*parts, strict=True)]


def _teacher_code(u: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    shifted = u.float() - u.float().amax(dim=-1, keepdim=True)
    exponentials = shifted.exp()
    total = _sum(exponentials)
    entropy = total.log() - _sum(exponentials * shifted) / total
    label = (_at_label(shifted, labels) - total.log()).where(labels.unsqueeze(-1) >= 0, 0.0)
    return entropy.squeeze(-1), label.squeeze(-1)


@cache
def _statistics_code(temperature: float) -> Callable[..., Any]:
    def statistics(z: Tensor, u: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        return _compare(z, u, labels, temperature).statistics

    return statistics


@cache
def _gradient_code(temperature: float) -> Callable[..., Any]:
    def gradient(  # noqa: PLR0917
        z: Tensor,
        u: Tensor,
        labels: Tensor,
        forward_kl: Tensor,
        reverse_kl: Tensor,
        cross_entropy: Tensor,
        out: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        row = _compare(z, u, labels, temperature)
        b, a, c = (column.float().unsqueeze(-1) for column in (forward_kl, reverse_kl, cross_entropy))
        c = c.where(labels.unsqueeze(-1) >= 0, 0.0)
        a, b = a * temperature, b * temperature
        weight = a / row.sum_q * (row.difference - row.reverse_kl) + b / row.sum_q
        made = row.q * weight - row.p * (b / row.sum_p) + row.q1 * (c / row.sum_q1)
        columns = torch.arange(z.shape[-1], dtype=torch.int32)
        made = made - c.where(columns == labels.unsqueeze(-1).int(), 0.0)
        (z if out is None else out).copy_(made)
        return row.statistics

    return gradient


class _Rows(NamedTuple):
    """Exponentials q, p and q1 (the student's at temperature 1), their sums `[rows, 1]`, and log q - log p.

    reverse_kl is without the factor T²; statistics are those of `RowStatistics`.
    """

    q: Tensor
    p: Tensor
    q1: Tensor
    sum_q: Tensor
    sum_p: Tensor
    sum_q1: Tensor
    difference: Tensor
    reverse_kl: Tensor
    statistics: tuple[Tensor, ...]


def _compare(z: Tensor, u: Tensor, labels: Tensor, temperature: float) -> _Rows:
    z, u = z.float(), u.float()
    highest, highest_u = z.amax(dim=-1, keepdim=True), u.amax(dim=-1, keepdim=True)
    q1 = (z - highest).exp()
    sum_q1 = _sum(q1)
    q = q1 if temperature == 1.0 else ((z - highest) / temperature).exp()
    sum_q = sum_q1 if temperature == 1.0 else _sum(q)
    p = ((u - highest_u) / temperature).exp()
    sum_p = _sum(p)
    difference = (z - u) / temperature - ((highest - highest_u) / temperature + (sum_q / sum_p).log())
    forward_kl, reverse_kl = -_sum(p * difference) / sum_p, _sum(q * difference) / sum_q
    cross_entropy = (highest - _at_label(z, labels) + sum_q1.log()).where(labels.unsqueeze(-1) >= 0, 0.0)
    statistics = (forward_kl * temperature**2, reverse_kl * temperature**2, cross_entropy)
    columns = tuple(column.squeeze(-1) for column in statistics)
    return _Rows(q, p, q1, sum_q, sum_p, sum_q1, difference, reverse_kl, columns)


def _sum(x: Tensor) -> Tensor:
    """Of each row, `[rows, 1]`: a single float32 sum over a vocabulary would lose digits."""
    parts = math.gcd(x.shape[-1], _PARTS)
    return x.unflatten(-1, (parts, -1)).sum(dim=-1).sum(dim=-1, keepdim=True)


def _at_label(x: Tensor, labels: Tensor) -> Tensor:
    return x.gather(-1, labels.clamp(min=0).unsqueeze(-1))
