"""Rows times the output head, chunk by chunk: logits of some rows, and the gradients that theirs give.

Half-precision operands give float32 logits and a float32 sum of the weight's gradient: CUDA's matrix product widens
its result, other devices widen the operands once and compute in float32.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from edgerazor.kernels.cpu_products import CodedMatrix, CodedOperands, integer_linear

CHUNK_BYTES = 64 * 2**20
CUDA_CHUNK_BYTES = 512 * 2**20
CUDA_CHUNK_ROWS = 1024


class Projection(NamedTuple):
    """Rows and the matrix that turns them into logits: `hidden [N, H]`, `weight [V, H]`, `bias [V]` or None.

    `codes` stand for hidden and weight in the logits where the product of codes is faster; gradients come from values.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None = None
    codes: CodedOperands | None = None

    def widened(self) -> "Projection":
        """Rows in the dtype of the weight, and both in float32 where the device cannot widen within the product."""
        hidden = self.hidden.to(self.weight.dtype)
        if self.weight.dtype.itemsize >= 4 or self.weight.device.type == "cuda":
            return self._replace(hidden=hidden)
        bias = None if self.bias is None else self.bias.float()
        return self._replace(hidden=hidden.float(), weight=self.weight.float(), bias=bias)

    def divided(self, divisor: float) -> "Projection":
        """The projection whose logits are those of this one, which has no bias, divided by a number."""
        codes = self.codes
        if codes is not None:
            x = codes.x._replace(scale=codes.x.scale / divisor)
            codes = codes._replace(x=x)
        return self._replace(hidden=self.hidden / divisor, codes=codes)

    def logits(self, rows: slice, out: Tensor | None = None) -> Tensor:
        """Logits of some rows, float32 (float64 if the weight is), from operands in the dtype of the weight.

        Args:
            out: a buffer `[at least as many rows, V]` that may be used; nothing is differentiated then, nor from codes.
        """
        place = None if out is None else out[: len(self.hidden[rows])]
        if self.codes is not None:
            x = CodedMatrix(*(part[rows] for part in self.codes.x))
            return integer_linear(CodedOperands(x, self.codes.weight), self.bias, out=place)
        with torch.autocast(self.hidden.device.type, enabled=False):
            chosen = Projection(self.hidden[rows], self.weight, self.bias).widened()
            logits = _product(chosen.hidden, chosen.weight.t(), out=place)
            return logits if chosen.bias is None else logits.add_(chosen.bias)

    def workspace(self, rows: int) -> Tensor:
        """A buffer for the logits of so many rows."""
        return self.weight.new_empty(
            rows, len(self.weight), dtype=torch.promote_types(self.weight.dtype, torch.float32)
        )


class HeadGradients:
    """Gradients with respect to hidden states, weight and bias, summed chunk by chunk in at least float32.

    They are made in a forward pass; the backward pass multiplies them by the upstream scalar.

    Args:
        given: what enters the product.
        needed: which of its three parts want a gradient.

    Attributes:
        student: the operands of the products, widened.
    """

    def __init__(self, given: Projection, needed: tuple[bool, ...]):
        hidden, weight, bias, _ = given
        exact = torch.promote_types(weight.dtype, torch.float32)
        self.student = given.widened()
        self.hidden = torch.zeros_like(hidden) if needed[0] else None
        self.weight = torch.empty_like(weight, dtype=exact) if needed[1] else None
        self.bias = torch.zeros_like(bias, dtype=exact) if needed[2] and bias is not None else None
        self._empty = True
        self._dtypes = (hidden.dtype, weight.dtype, weight.dtype if bias is None else bias.dtype)

    def add(self, rows: slice, gradient: Tensor) -> None:
        """Add what the gradient of the logits `[n, V]` of some rows gives to hidden states, weight and bias."""
        if self.bias is not None:
            self.bias += gradient.sum(dim=0)
        gradient = gradient.to(self.student.weight.dtype)
        if self.hidden is not None:
            self.hidden[rows] = torch.mm(gradient, self.student.weight)
        if self.weight is not None:
            _add_product_(self.weight, gradient.t(), self.student.hidden[rows], fresh=self._empty)
            self._empty = False

    def save(self, ctx: Any) -> None:
        """Keep the three gradients for the backward pass."""
        if self.weight is not None and self._empty:
            self.weight.zero_()
        ctx.save_for_backward(self.hidden, self.weight, self.bias)
        ctx.dtypes = self._dtypes

    @staticmethod
    def scaled(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """What was saved times the upstream scalar, each in the dtype of its operand."""
        return tuple(
            None if saved is None else scaled_(saved, upstream).to(dtype)
            for saved, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )


def scaled_(gradient: Tensor, upstream: Tensor) -> Tensor:
    """The product, in the memory of the gradient; autograd refuses to go through the same graph a second time."""
    return gradient.mul_(upstream.to(gradient.dtype))


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


def chunks(rows: int, chunk: int) -> Iterator[slice]:
    """Consecutive slices of at most `chunk` rows."""
    for start in range(0, rows, chunk):
        yield slice(start, min(start + chunk, rows))


def _product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """The matrix product in at least float32; half-precision operands are on CUDA."""
    if a.dtype.itemsize < 4:
        return torch.mm(a, b, out_dtype=torch.float32)  # type: ignore[call-overload,no-any-return]
    return torch.mm(a, b, out=out)


def _add_product_(total: Tensor, a: Tensor, b: Tensor, *, fresh: bool) -> None:
    """`total += a @ b`, or `total = a @ b`; not every torch lets addmm take a float32 total with half operands."""
    if a.dtype != total.dtype:
        product = _product(a, b)
        total.copy_(product) if fresh else total.add_(product)
    elif fresh:
        torch.mm(a, b, out=total)
    else:
        total.addmm_(a, b)
