"""From final hidden states and head weights to loss and gradients, in chunks: `[rows, vocab]` never exists whole.

The gradient is made in the forward pass and multiplied by the upstream scalar in the backward pass (KERNELS 2.4). Value
and gradient are exact sums over the rows, so they do not depend on the chunk size beyond rounding.

Half-precision operands give float32 logits and a float32 sum of the weight's gradient: CUDA's matrix product widens
its result, other devices widen the operands once and compute in float32.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from edgerazor.kernels.dispatch import row_gradient, row_statistics, teacher_row_statistics
from edgerazor.kernels.divergence import RowStatistics, RowWeights

CHUNK_BYTES = 64 * 2**20
CUDA_CHUNK_BYTES = 512 * 2**20
CUDA_CHUNK_ROWS = 1024
KEEP_BYTES = 256 * 2**20


class Projection(NamedTuple):
    """Rows and the matrix that turns them into logits: `hidden [N, H]`, `weight [V, H]`, `bias [V]` or None."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None = None

    def widened(self) -> "Projection":
        """Rows in the dtype of the weight, and both in float32 where the device cannot widen within the product."""
        hidden = self.hidden.to(self.weight.dtype)
        if self.weight.dtype.itemsize >= 4 or self.weight.device.type == "cuda":
            return Projection(hidden, self.weight, self.bias)
        return Projection(hidden.float(), self.weight.float(), None if self.bias is None else self.bias.float())

    def logits(self, rows: slice, out: Tensor | None = None) -> Tensor:
        """Logits of some rows, float32 (float64 if the weight is), from operands in the dtype of the weight.

        Args:
            out: a buffer `[at least as many rows, V]` that may be used; nothing is differentiated then.
        """
        with torch.autocast(self.hidden.device.type, enabled=False):
            one = Projection(self.hidden[rows], self.weight, self.bias).widened()
            place = None if out is None else out[: len(one.hidden)]
            logits = _product(one.hidden, one.weight.t(), out=place)
            return logits if one.bias is None else logits.add_(one.bias)

    def workspace(self, rows: int) -> Tensor:
        """A buffer for the logits of so many rows."""
        return self.weight.new_empty(
            rows, len(self.weight), dtype=torch.promote_types(self.weight.dtype, torch.float32)
        )


def chunk_rows(rows: int, vocabulary: int, device: torch.device | str = "cpu") -> int:
    """Rows per chunk, at least 1.

    On a CPU one float32 chunk of logits stays near `CHUNK_BYTES`. On CUDA a chunk has `CUDA_CHUNK_ROWS` or more, so
    that summing the weight's gradient costs less than the products that make it, and a multiple of 128 (KERNELS 2.4).
    """
    if torch.device(device).type == "cuda":
        chunk = max(CUDA_CHUNK_ROWS, CUDA_CHUNK_BYTES // (4 * vocabulary) // 128 * 128)
    else:
        chunk = CHUNK_BYTES // (4 * vocabulary)
    return max(1, min(rows, chunk))


class TeacherLogits:
    """Logits of the teacher by chunk; kept between the two passes while they are small, computed again otherwise."""

    def __init__(self, projection: Projection, chunk: int, *, keep_bytes: int = KEEP_BYTES):
        self.projection, self.chunk = projection.widened(), chunk
        self._kept: dict[int, Tensor] = {}
        self._keep = projection.hidden.shape[0] * projection.weight.shape[0] * 4 <= keep_bytes

    def rows(self, rows: slice, z: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """Teacher logits of one chunk, float32 (float64 for float64 models); they depend on neither student nor T."""
        if rows.start not in self._kept:
            logits = self.projection.logits(rows)
            if not self._keep:
                return logits
            self._kept[rows.start] = logits
        return self._kept[rows.start]


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
        student.hidden, student.weight, student.bias, teacher, labels, weights, temperature
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
        teacher: TeacherRowSource | None,
        labels: Tensor,
        weights: RowWeights,
        temperature: float,
    ) -> tuple[Tensor, ...]:
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        student = Projection(hidden, weight, bias).widened()
        exact = torch.promote_types(weight.dtype, torch.float32)
        gradient_hidden = torch.zeros_like(hidden) if need_hidden else None
        gradient_weight = torch.zeros_like(weight, dtype=exact) if need_weight else None
        gradient_bias = torch.zeros_like(bias, dtype=exact) if need_bias and bias is not None else None
        parts: list[RowStatistics] = []
        with torch.autocast(hidden.device.type, enabled=False):
            chunk = _chunk(student, teacher)
            workspace = student.workspace(min(chunk, len(hidden)))
            for rows in chunks(len(hidden), chunk):
                factors = RowWeights(*(column[rows] for column in weights))
                z = student.logits(rows, out=workspace)
                u = teacher.rows(rows, z, temperature) if teacher else None
                gradient, statistics = row_gradient(z, u, labels[rows], factors, temperature, overwrite=True)
                parts.append(statistics)
                if gradient_bias is not None:
                    gradient_bias += gradient.sum(dim=0)
                gradient = gradient.to(student.weight.dtype)
                if gradient_hidden is not None:
                    gradient_hidden[rows] = torch.mm(gradient, student.weight)
                if gradient_weight is not None:
                    add_product_(gradient_weight, gradient.t(), student.hidden[rows])
        columns = (
            [torch.cat(column) for column in zip(*parts, strict=True)] if parts else [labels.new_zeros(0).float()] * 3
        )
        value = _weighted_sum(weights, columns)
        ctx.save_for_backward(gradient_hidden, gradient_weight, gradient_bias)
        ctx.dtypes = (hidden.dtype, weight.dtype, weight.dtype if bias is None else bias.dtype)
        ctx.mark_non_differentiable(*columns)
        return (value, *columns)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Any, ...]:
        gradients = (
            None if saved is None else _scaled(saved, upstream).to(dtype)
            for saved, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return (*gradients, None, None, None, None)


def _scaled(gradient: Tensor, upstream: Tensor) -> Tensor:
    """The product, in the memory of the gradient; autograd refuses to go through the same graph a second time."""
    return gradient.mul_(upstream.to(gradient.dtype))


def _product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """The matrix product in at least float32; half-precision operands are on CUDA."""
    if a.dtype.itemsize < 4:
        return torch.mm(a, b, out_dtype=torch.float32)  # type: ignore[call-overload,no-any-return]
    return torch.mm(a, b, out=out)


def add_product_(total: Tensor, a: Tensor, b: Tensor) -> None:
    """`total += a @ b`; not every torch lets addmm take a float32 total with half-precision operands."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    else:
        total += _product(a, b)


def _chunk(student: Projection, teacher: TeacherRowSource | None) -> int:
    if teacher is not None:
        return teacher.chunk
    return chunk_rows(student.hidden.shape[0], student.weight.shape[0], student.weight.device)


def chunks(rows: int, chunk: int) -> Iterator[slice]:
    """Consecutive slices of at most `chunk` rows."""
    for start in range(0, rows, chunk):
        yield slice(start, min(start + chunk, rows))


@torch.no_grad()
def logits_teacher_statistics(u: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Entropy and label log probability of rows of teacher logits `[N, V]`, chunk by chunk."""
    parts = [
        teacher_row_statistics(_exact(u[rows]), labels[rows])
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
            part, statistics = row_gradient(_exact(z[rows]), _exact(u[rows]), labels[rows], factors, temperature)
            gradient[rows] = part
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
        return _scaled(gradient, upstream), None, None, None, None


def _exact(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _weighted_sum(weights: RowWeights, columns: list[Tensor]) -> Tensor:
    forward_kl, reverse_kl, cross_entropy = (
        (factor * column).sum() for factor, column in zip(weights, columns, strict=True)
    )
    return forward_kl + reverse_kl + cross_entropy
