"""Generalized Jensen-Shannon divergence of rows of logits, with its gradient, chunk by chunk (METHOD 4.2).

With lp and lq the log probabilities at temperature T and lm = log(beta p + (1 - beta) q):

    d = T² (beta sum p (lp - lm) + (1 - beta) sum q (lq - lm))
    gradient of d with respect to the student's logit j = T (1 - beta) q_j (r_j - sum q r), r = lq - lm
"""

import math
from typing import Any

import torch
from torch import Tensor

from edgerazor.kernels.fused_linear import chunk_rows


def jensen_shannon(
    z: Tensor, u: Tensor, factors: Tensor, *, beta: float, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Weighted sum over rows, differentiable in `z`.

    Args:
        z, u: logits of student and teacher `[N, V]`; computed in float32, or float64 if they are.
        factors: of each row `[N]`; rows with factor 0 have no gradient, whatever they hold.
        beta: share of the teacher in the mixture, between 0 and 1.

    Returns:
        The scalar value and the detached divergence of every row `[N]`.
    """
    value, rows = _JensenShannon.apply(z, u, factors, beta, temperature)  # type: ignore[no-untyped-call]
    return value, rows


def _rows(z: Tensor, u: Tensor, beta: float, temperature: float) -> tuple[Tensor, Tensor]:
    """Divergence `[n]` and gradient `[n, V]` of some rows."""
    lq, lp = (logits.div(temperature).log_softmax(dim=-1) for logits in (z, u))
    lm = torch.logaddexp(lp + math.log(beta), lq + math.log1p(-beta))
    q, ratio = lq.exp(), lq - lm
    from_student = (q * ratio).sum(dim=-1, keepdim=True)
    from_teacher = (lp.exp() * (lp - lm)).sum(dim=-1)
    divergence = temperature**2 * (beta * from_teacher + (1 - beta) * from_student.squeeze(-1))
    return divergence, q.mul_(ratio.sub_(from_student)).mul_(temperature * (1 - beta))


class _JensenShannon(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z: Tensor, u: Tensor, factors: Tensor, beta: float, temperature: float
    ) -> tuple[Tensor, Tensor]:
        gradient = torch.empty_like(z)
        exact = torch.promote_types(z.dtype, torch.float32)
        divergences = z.new_empty(len(z), dtype=exact)
        chunk = chunk_rows(len(z), z.shape[-1], z.device)
        with torch.autocast(z.device.type, enabled=False):
            for start in range(0, len(z), chunk):
                rows = slice(start, start + chunk)
                divergences[rows], part = _rows(z[rows].to(exact), u[rows].to(exact), beta, temperature)
                gradient[rows] = torch.where(factors[rows, None] != 0, part * factors[rows, None], 0.0)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(divergences)
        return (divergences.where(factors != 0, 0.0) * factors).sum(), divergences

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Any, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream.to(gradient.dtype), None, None, None, None
