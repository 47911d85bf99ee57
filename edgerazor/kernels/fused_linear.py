"""From final hidden states and head weights to loss and gradients, in chunks: `[rows, vocab]` never exists whole.

The gradient is made in the forward pass and multiplied by the upstream scalar in the backward pass (KERNELS 2.4). Value
and gradient are exact sums over the rows, so they do not depend on the chunk size beyond rounding.
"""

from typing import Any, Protocol

import torch
from torch import Tensor

from edgerazor.kernels.cpu_products import CodedOperands
from edgerazor.kernels.dispatch import row_gradient, row_statistics, teacher_row_statistics
from edgerazor.kernels.divergence import RowStatistics, RowWeights
from edgerazor.kernels.projection import HeadGradients, Projection, chunk_rows, chunks, scaled_

KEEP_BYTES = {"cpu": 256 * 2**20, "cuda": 2 * 2**30}


class TeacherLogits:
    """Logits of the teacher by chunk; kept between the two passes if all fit the budget, else computed again.

    Args:
        projection: of the rows that enter the product.
        chunk: rows per chunk.
        keep_bytes: the budget; None is `KEEP_BYTES` of the device.
        keep_dtype: of what is kept, and read by both passes; None is float32, on CUDA the dtype of the teacher's head,
            in which its own forward pass would round its logits.
    """

    def __init__(
        self,
        projection: Projection,
        chunk: int,
        *,
        keep_bytes: int | None = None,
        keep_dtype: torch.dtype | None = None,
    ):
        self.projection, self.chunk = projection.widened(), chunk
        self._kept: dict[int, Tensor] = {}
        device, exact = projection.weight.device.type, torch.promote_types(projection.weight.dtype, torch.float32)
        self._dtype = keep_dtype or (projection.weight.dtype if device == "cuda" else exact)
        budget = KEEP_BYTES["cuda" if device == "cuda" else "cpu"] if keep_bytes is None else keep_bytes
        needed = projection.hidden.shape[0] * projection.weight.shape[0] * self._dtype.itemsize
        self.keeps = needed <= budget

    def rows(self, rows: slice, z: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """Teacher logits of one chunk, float32 (float64 for float64 models); they depend on neither student nor T."""
        if not self.keeps:
            return self.projection.logits(rows)
        if rows.start not in self._kept:
            self._kept[rows.start] = self.projection.logits(rows).to(self._dtype)
        kept = self._kept[rows.start]
        return kept if kept.dtype.itemsize >= 4 else kept.float()


class TeacherRowSource(Protocol):
    """Rows of teacher logits, chunk by chunk: `TeacherLogits`, or what a cache of its likeliest tokens gives."""

    chunk: int

    def rows(self, rows: slice, z: Tensor, temperature: float) -> Tensor:
        """Logits `[n, V]` of some rows; `z` are the student's logits of the same rows."""


@torch.no_grad()
def teacher_statistics(teacher: TeacherLogits, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Entropy and label log probability of every row (METHOD 4.3), each `[N]`."""
    parts = [teacher_row_statistics(teacher.rows(rows), labels[rows]) for rows in chunks(len(labels), teacher.chunk)]
    if not parts:
        empty = teacher.projection.hidden.new_zeros(0, dtype=torch.float32)
        return empty, empty
    entropy, label = zip(*parts, strict=True)
    return torch.cat(entropy), torch.cat(label)


def fused_linear_distillation(
    student: Projection,
    teacher: TeacherRowSource | None,
    labels: Tensor,
    weights: RowWeights,
    *,
    temperature: float = 1.0,
) -> tuple[Tensor, RowStatistics]:
    """Weighted sum of forward KL, reverse KL and cross entropy over rows, differentiable in the student.

    Args:
        student: rows that enter the product, in the dtype of the product; gradients reach hidden, weight and bias.
        teacher: the same rows of the teacher; None leaves only the cross entropy.
        labels: int64 `[N]`, the token each row predicts; negative where there is none.
        weights: factors per row, `[N]` each; they hold loss weight, reduction and gamma.
        temperature: of both divergences; the cross entropy is always at 1.

    Returns:
        The scalar value and the detached statistics of every row.

    Raises:
        ValueError: the student's weight is float16: its gradient would be rounded before a loss scaler could help.
    """
    if student.weight.dtype == torch.float16:
        raise ValueError("the gradient of a float16 head would underflow; train the head in bfloat16 or float32")
    value, *statistics = _FusedLinear.apply(  # type: ignore[no-untyped-call]
        *student, teacher, labels, weights, temperature
    )
    return value, RowStatistics(*statistics)


@torch.no_grad()
def fused_linear_statistics(
    student: Projection, teacher: TeacherRowSource | None, labels: Tensor, *, temperature: float = 1.0
) -> tuple[RowStatistics, Tensor]:
    """Statistics of every row, and whether student and teacher agree on the likeliest token `[N]`; no gradients."""
    student, chunk = student.widened(), _chunk(student, teacher)
    parts, agreement = [], []
    for rows in chunks(len(labels), chunk):
        z = student.logits(rows)
        u = teacher.rows(rows, z, temperature) if teacher else None
        parts.append(row_statistics(z, u, labels[rows], temperature))
        agreement.append(z.argmax(dim=-1) == (z if u is None else u).argmax(dim=-1))
    if not parts:
        empty = student.hidden.new_zeros(0, dtype=torch.float32)
        return RowStatistics(empty, empty, empty), empty.bool()
    return RowStatistics(*(torch.cat(column) for column in zip(*parts, strict=True))), torch.cat(agreement)


class _FusedLinear(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        codes: CodedOperands | None,
        teacher: TeacherRowSource | None,
        labels: Tensor,
        weights: RowWeights,
        temperature: float,
    ) -> tuple[Tensor, ...]:
        gradients = HeadGradients(Projection(hidden, weight, bias, codes), ctx.needs_input_grad[:3])
        student = gradients.student
        parts: list[RowStatistics] = []
        with torch.autocast(hidden.device.type, enabled=False):
            chunk = _chunk(student, teacher)
            workspace = student.workspace(min(chunk, len(hidden)))
            for rows in chunks(len(hidden), chunk):
                factors = RowWeights(*(column[rows] for column in weights))
                z = student.logits(rows, out=workspace)
                u = teacher.rows(rows, z, temperature) if teacher else None
                gradient, statistics = row_gradient(z, u, labels[rows], factors, temperature, out=z)
                parts.append(statistics)
                gradients.add(rows, gradient)
                del u  # before the next chunk's is made
        columns = (
            [torch.cat(column) for column in zip(*parts, strict=True)] if parts else [labels.new_zeros(0).float()] * 3
        )
        value = _weighted_sum(weights, columns)
        gradients.save(ctx)
        ctx.mark_non_differentiable(*columns)
        return (value, *columns)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Any, ...]:
        return (*HeadGradients.scaled(ctx, upstream), None, None, None, None, None)


def _chunk(student: Projection, teacher: TeacherRowSource | None) -> int:
    if teacher is not None:
        return teacher.chunk
    return chunk_rows(student.hidden.shape[0], student.weight.shape[0], student.weight.device)


@torch.no_grad()
def logits_teacher_statistics(u: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Entropy and label log probability of rows of teacher logits `[N, V]`, chunk by chunk."""
    parts = [
        teacher_row_statistics(u[rows], labels[rows])
        for rows in chunks(len(u), chunk_rows(len(u), u.shape[-1], u.device))
    ]
    entropy, label = zip(*parts, strict=True)
    return torch.cat(entropy), torch.cat(label)


def logits_distillation(
    z: Tensor, u: Tensor, labels: Tensor, weights: RowWeights, *, temperature: float = 1.0
) -> tuple[Tensor, RowStatistics]:
    """Like `fused_linear_distillation`, from logits `[N, V]` that exist already; the gradient reaches `z`."""
    value, *statistics = _FromLogits.apply(z, u, labels, weights, temperature)  # type: ignore[no-untyped-call]
    return value, RowStatistics(*statistics)


class _FromLogits(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z: Tensor, u: Tensor, labels: Tensor, weights: RowWeights, temperature: float
    ) -> tuple[Tensor, ...]:
        gradient = torch.empty_like(z)
        parts: list[RowStatistics] = []
        for rows in chunks(len(z), chunk_rows(len(z), z.shape[-1], z.device)):
            factors = RowWeights(*(column[rows] for column in weights))
            _, statistics = row_gradient(z[rows], u[rows], labels[rows], factors, temperature, out=gradient[rows])
            parts.append(statistics)
        columns = [torch.cat(column) for column in zip(*parts, strict=True)]
        value = _weighted_sum(weights, columns)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(*columns)
        return (value, *columns)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Any, ...]:
        (gradient,) = ctx.saved_tensors
        return scaled_(gradient, upstream), None, None, None, None


def _weighted_sum(weights: RowWeights, columns: list[Tensor]) -> Tensor:
    forward_kl, reverse_kl, cross_entropy = (
        (factor * column).sum() for factor, column in zip(weights, columns, strict=True)
    )
    return forward_kl + reverse_kl + cross_entropy
