"""What rounding a matrix has to know of its inputs, and the weights that make up for errors made before it.

A matrix W gets x' from the rounded layers before it where the 16-bit model gives it x. Rounding W itself would keep
the error of x'; the weights to round are those whose outputs on x' come closest to W x, which least squares gives:
W + W (Σ (x - x') x'ᵀ) (Σ x' x'ᵀ)⁻¹. The idea is that of Arai and Ichikawa 2025, arXiv:2504.09629, and Li et al. 2025,
arXiv:2504.02692.
"""

from functools import cached_property

import torch
from torch import Tensor

DAMPING = 0.01  # of the mean diagonal, as in GPTQ


class InputMoments:
    """Sums over tokens of what the rows of a weight are multiplied by.

    Attributes:
        own: Σ x' x'ᵀ of the rounded model's inputs, float32 `[columns, columns]`; a single 0 before the first.
        missing: Σ (x - x') x'ᵀ, with x the 16-bit model's inputs for the same tokens; likewise.
    """

    def __init__(self) -> None:
        self.own, self.missing = torch.zeros(()), torch.zeros(())

    def add(self, own: Tensor, wanted: Tensor) -> None:
        """Count the inputs `[rows, columns]` of the rounded model and of the 16-bit one."""
        own = own.float()
        self.own = self.own + own.T @ own
        self.missing = self.missing + (wanted.float() - own).T @ own

    def matched(self, weight: Tensor) -> Tensor:
        """The weight `[R, columns]` whose outputs on the rounded model's inputs are nearest to the 16-bit model's."""
        return weight if self._change is None else weight + weight @ self._change

    @cached_property
    def _change(self) -> Tensor | None:
        """What to add to a weight by its product with it, `[columns, columns]`; None where nothing is missing."""
        if not bool(self.missing.any()):
            return None
        factor = torch.linalg.cholesky(damped(self.own))
        return torch.cholesky_solve(self.missing.double().T, factor).T.float()


def damped(moments: Tensor) -> Tensor:
    """Second moments, float64, that can be inverted; columns that are always zero are left alone."""
    damped = moments.double().clone()
    diagonal = damped.diagonal()
    absent = diagonal == 0
    diagonal[absent] = 1.0
    damped[absent.nonzero().squeeze(1)] = torch.diag(diagonal)[absent]
    damped[:, absent] = torch.diag(diagonal)[:, absent]
    diagonal += DAMPING * diagonal.mean()
    return damped
