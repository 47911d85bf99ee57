"""Generalized Jensen-Shannon divergence of rows of logits, with its gradient, chunk by chunk (METHOD 4.2).

With lp and lq the log probabilities at temperature T and lm = log(beta p + (1 - beta) q):

    d = T² (beta sum p (lp - lm) + (1 - beta) sum q (lq - lm))
    gradient of d with respect to the student's logit j = T (1 - beta) q_j (r_j - sum q r), r = lq - lm
"""

import math
from typing import Any

import torch
from torch import Tensor

from edgerazor.kernels.cpu_products import CodedOperands
from edgerazor.kernels.fused_linear import TeacherLogits
from edgerazor.kernels.projection import HeadGradients, Projection, chunk_rows, chunks, scaled_


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
    value, rows = _FromLogits.apply(z, u, factors, beta, temperature)  # type: ignore[no-untyped-call]
    return value, rows


def fused_jensen_shannon(
    student: Projection, teacher: TeacherLogits, factors: Tensor, *, beta: float, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Like `jensen_shannon`, from hidden states and heads: `[rows, vocab]` never exists whole.

    Args:
        student: rows that enter the product; gradients reach hidden, weight and bias.
        teacher: the same rows of the teacher.
    """
    value, rows = _Fused.apply(*student, teacher, factors, beta, temperature)  # type: ignore[no-untyped-call]
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


def _weighted(gradient: Tensor, factors: Tensor) -> Tensor:
    return torch.where(factors.unsqueeze(-1) != 0, gradient * factors.unsqueeze(-1), 0.0)


class _FromLogits(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z: Tensor, u: Tensor, factors: Tensor, beta: float, temperature: float
    ) -> tuple[Tensor, Tensor]:
        gradient = torch.empty_like(z)
        exact = torch.promote_types(z.dtype, torch.float32)
        divergences = z.new_empty(len(z), dtype=exact)
        chunk = chunk_rows(len(z), z.shape[-1], z.device)
        with torch.autocast(z.device.type, enabled=False):
            for rows in chunks(len(z), chunk):
                divergences[rows], part = _rows(z[rows].to(exact), u[rows].to(exact), beta, temperature)
                gradient[rows] = _weighted(part, factors[rows])
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(divergences)
        return (divergences.where(factors != 0, 0.0) * factors).sum(), divergences

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Any, ...]:
        (gradient,) = ctx.saved_tensors
        return scaled_(gradient, upstream), None, None, None, None


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        codes: CodedOperands | None,
        teacher: TeacherLogits,
        factors: Tensor,
        beta: float,
        temperature: float,
    ) -> tuple[Tensor, Tensor]:
        gradients = HeadGradients(Projection(hidden, weight, bias, codes), ctx.needs_input_grad[:3])
        student = gradients.student
        exact = torch.promote_types(weight.dtype, torch.float32)
        divergences = torch.empty(len(hidden), dtype=exact, device=hidden.device)
        with torch.autocast(hidden.device.type, enabled=False):
            for rows in chunks(len(hidden), teacher.chunk):
                divergences[rows], part = _rows(student.logits(rows), teacher.rows(rows), beta, temperature)
                gradients.add(rows, _weighted(part, factors[rows]))
        gradients.save(ctx)
        ctx.mark_non_differentiable(divergences)
        return (divergences.where(factors != 0, 0.0) * factors).sum(), divergences

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Any, ...]:
        return (*HeadGradients.scaled(ctx, upstream), None, None, None, None, None)
