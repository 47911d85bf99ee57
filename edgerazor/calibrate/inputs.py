"""What rounding a matrix has to know of its inputs, and the weights that make up for errors made before it.

A matrix W gets x' from the rounded layers before it where the 16-bit model gives it x. Rounding W itself would keep
the error of x'; the weights to round are those whose outputs on x' come closest to W x. Where the model adds the
output to a residual stream, which is r' in the rounded model and r in the other, it is the sum that is to come close.
Least squares gives W + (Σ (W (x - x') + r - r') x'ᵀ) (Σ x' x'ᵀ)⁻¹. The idea is that of Arai and Ichikawa 2025,
arXiv:2504.09629, and Li et al. 2025, arXiv:2504.02692. Of few tokens it would learn by heart what is chance, so the
moments that are inverted are damped, the more the fewer tokens there are for each column, as the best ridge is.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor

DAMPING = 0.01  # of the mean diagonal, as in GPTQ
RIDGE = 5.0  # times columns over tokens
_AT_ONCE = 384  # columns of a product that leaves out most of what is the same on both sides of the diagonal
T = TypeVar("T")


@dataclass(frozen=True)
class Inputs:
    """Of a matrix, for some tokens.

    Attributes:
        rows: what the rows of its weight are multiplied by, `[tokens, columns]`.
        residual: what its output is added to, `[tokens, R]`; None where that is nothing or not known.
    """

    rows: Tensor
    residual: Tensor | None = None

    @property
    def parts(self) -> list[Tensor]:
        """What there is of both, from which it can be made again."""
        return [self.rows] if self.residual is None else [self.rows, self.residual]


class InputMoments:
    """Sums over tokens of what the rows of a weight are multiplied by.

    Args:
        added: the weight `[R, columns]`, float32, of a matrix whose output is added to a residual stream; None where
            several matrices have these inputs, or what is done with the output is not known.
    """

    def __init__(self, added: Tensor | None = None):
        self._added, self._tokens = added, 0
        self._moments = self._missing = torch.zeros(())

    def add(self, own: Inputs, wanted: Inputs) -> None:
        """Count inputs in the rounded model and, for the same tokens, in the 16-bit one."""
        rows = own.rows.float()
        missing = wanted.rows.float() - rows
        if self._added is not None:
            assert own.residual is not None and wanted.residual is not None
            missing = missing @ self._added.T + (wanted.residual.float() - own.residual.float())
        if not self._tokens:
            self._moments, self._missing = (rows.new_zeros(left.shape[1], rows.shape[1]) for left in (rows, missing))
        self._tokens += len(rows)
        _add_square(self._moments, rows)
        self._missing.addmm_(missing.T, rows)

    @property
    def own(self) -> Tensor:
        """Σ x' x'ᵀ of the rounded model's inputs, float32 `[columns, columns]`."""
        upper = self._moments.triu()
        return upper + upper.triu(1).T

    def matched(self, weight: Tensor) -> Tensor:
        """The weight `[R, columns]` whose outputs on the rounded model's inputs are nearest to the 16-bit model's.

        In directions of which the inputs tell nothing it stays as it is: the moments are damped.

        Args:
            weight: float32; the one that is `added`, or any of those that have the inputs.
        """
        if not bool(self._missing.any()):
            return weight
        return weight + (self._change if self._added is not None else weight @ self._change)

    @property
    def damping(self) -> float:
        """Of the least squares, as a part of the mean diagonal of the moments."""
        return max(DAMPING, RIDGE * len(self._moments) / self._tokens)

    @cached_property
    def _change(self) -> Tensor:
        return self._solved(self._missing)

    @cached_property
    def _factor(self) -> Tensor:
        return torch.linalg.cholesky(damped(self.own, self.damping))

    def _solved(self, left: Tensor) -> Tensor:
        """`left` times the inverse of the damped moments, float32."""
        return torch.cholesky_solve(left.double().T, self._factor).T.float()


def _add_square(moments: Tensor, rows: Tensor) -> None:
    """Add to the upper triangle of moments, in place; what is below it means nothing."""
    for start in range(0, len(moments), _AT_ONCE):
        end = min(start + _AT_ONCE, len(moments))
        moments[:end, start:end].addmm_(rows[:, :end].T, rows[:, start:end])


def damped(moments: Tensor, damping: float = DAMPING) -> Tensor:
    """Second moments, float64, that can be inverted; columns that are always zero are left alone.

    Args:
        moments: float32 `[columns, columns]`.
        damping: what is added to the diagonal, as a part of its mean.
    """
    found = moments.double().clone()
    diagonal = found.diagonal()
    absent = diagonal == 0
    diagonal[absent] = 1.0
    found[absent.nonzero().squeeze(1)] = torch.diag(diagonal)[absent]
    found[:, absent] = torch.diag(diagonal)[:, absent]
    diagonal += damping * diagonal.mean()
    return found


def sharing_inputs(used: Iterable[tuple[T, Tensor]]) -> list[list[T]]:
    """Matrices in the order of their use, each with its input, as lists of those that are given one tensor in turn."""
    sets: list[list[T]] = []
    last: Tensor | None = None
    for matrix, x in used:
        if x is not last:
            sets.append([])
        sets[-1].append(matrix)
        last = x
    return sets
