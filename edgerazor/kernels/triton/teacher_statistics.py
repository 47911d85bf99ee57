"""Entropy and label log probability of a teacher's rows in one read: `divergence.teacher_row_statistics`' twin."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from edgerazor.kernels.triton.row_statistics import adjacent, weighed

_TILE = 4096
_LOWEST = tl.constexpr(-3e38)
_NAN = tl.constexpr(float("nan"))


@triton.jit
def teacher_statistics_kernel(  # noqa: PLR0917
    u_pointer, labels_pointer, columns_pointer, rows, vocabulary, row_stride, tile: tl.constexpr
):
    """One program per row; the moment is kept about the running maximum and moved when that grows."""
    row = tl.program_id(0).to(tl.int64)
    u_pointer += row * row_stride
    lane = tl.arange(0, tile)
    highest = tl.full((), _LOWEST, tl.float32)
    total = tl.full((), 0.0, tl.float64)
    moment = tl.full((), 0.0, tl.float64)
    for start in range(0, vocabulary, tile):
        u = tl.load(u_pointer + start + lane, mask=start + lane < vocabulary, other=-float("inf")).to(tl.float32)
        raised = tl.maximum(highest, tl.max(u, axis=0))
        grown = (raised - highest).to(tl.float64)
        shrink, weight = weighed(u, highest, raised, 1.0)
        part = tl.sum(tl.where(weight == 0, 0.0, weight * (u - raised)), axis=0)
        moment = (moment - grown * total) * shrink + part
        total = total * shrink + tl.sum(weight, axis=0)
        highest = raised
    log_total = tl.log(total)
    tl.store(columns_pointer + row, log_total - moment / total)
    label = tl.load(labels_pointer + row)
    taken = tl.load(u_pointer + label, mask=(label >= 0) & (label < vocabulary), other=_NAN).to(tl.float32)
    tl.store(columns_pointer + rows + row, tl.where(label < 0, 0.0, (taken - highest).to(tl.float64) - log_total))


def teacher_row_statistics(u: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Like `divergence.teacher_row_statistics`, for float32, bfloat16 and float16 logits; float32 results.

    A label outside the vocabulary gives NaN.
    """
    u = adjacent(u)
    columns = u.new_empty((2, len(u)), dtype=torch.float32)
    if len(u):
        with torch.cuda.device_of(u):
            teacher_statistics_kernel[(len(u),)](
                u, labels.contiguous(), columns, len(u), u.shape[1], u.stride(0), tile=_TILE, num_warps=8
            )
    return columns[0], columns[1]
