"""Divergences and cross entropy of rows in one read of both logits: the twin of `divergence.row_statistics`.

Per tile the maxima grow and the sums shrink with them (KERNELS 2.2). Elements are float32; what is kept of a row is
float64, so that the offset D of the log probabilities, a difference of nearly equal numbers, costs no digits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from edgerazor.kernels.divergence import RowStatistics

COLUMNS = 9
_TILE = 4096
_LOWEST = tl.constexpr(-3e38)
_NAN = tl.constexpr(float("nan"))


@triton.jit
def weighed(logits, highest, raised, inverse):
    """What a growing maximum leaves of earlier sums, float64, and the exponentials of a tile about the new one."""
    return tl.exp((highest - raised) * inverse).to(tl.float64), tl.exp((logits - raised) * inverse)


@triton.jit
def row_statistics_kernel(  # noqa: PLR0915, PLR0917
    z_pointer,
    u_pointer,
    labels_pointer,
    columns_pointer,
    rows,
    vocabulary,
    z_stride,
    u_stride,
    temperature,
    inverse,
    tempered: tl.constexpr,
    tile: tl.constexpr,
):
    """One program per row; `u_pointer` None: no teacher, only the columns of the cross entropy mean something."""
    row = tl.program_id(0).to(tl.int64)
    z_pointer += row * z_stride
    lane = tl.arange(0, tile)
    highest_z = tl.full((), _LOWEST, tl.float32)
    highest_u = tl.full((), _LOWEST, tl.float32)
    total_z = tl.full((), 0.0, tl.float64)
    total_u = tl.full((), 0.0, tl.float64)
    total_task = tl.full((), 0.0, tl.float64)
    moment_z = tl.full((), 0.0, tl.float64)
    moment_u = tl.full((), 0.0, tl.float64)
    for start in range(0, vocabulary, tile):
        inside = start + lane < vocabulary
        z = tl.load(z_pointer + start + lane, mask=inside, other=-float("inf")).to(tl.float32)
        raised = tl.maximum(highest_z, tl.max(z, axis=0))
        if tempered:
            shrink, weight = weighed(z, highest_z, raised, 1.0)
            total_task = total_task * shrink + tl.sum(weight, axis=0)
        shrink, weight = weighed(z, highest_z, raised, inverse)
        total_z = total_z * shrink + tl.sum(weight, axis=0)
        highest_z = raised
        if u_pointer is not None:
            u = tl.load(u_pointer + row * u_stride + start + lane, mask=inside, other=-float("inf")).to(tl.float32)
            difference = (z - u) * inverse
            moment_z = moment_z * shrink + tl.sum(tl.where(weight == 0, 0.0, weight * difference), axis=0)
            raised = tl.maximum(highest_u, tl.max(u, axis=0))
            shrink, weight = weighed(u, highest_u, raised, inverse)
            total_u = total_u * shrink + tl.sum(weight, axis=0)
            moment_u = moment_u * shrink + tl.sum(tl.where(weight == 0, 0.0, weight * difference), axis=0)
            highest_u = raised

    columns_pointer += row
    if u_pointer is not None:
        offset = (highest_z.to(tl.float64) - highest_u.to(tl.float64)) * inverse + tl.log(total_z / total_u)
        mean_z = moment_z / total_z
        scale = temperature * temperature
        tl.store(columns_pointer, (offset - moment_u / total_u) * scale)
        tl.store(columns_pointer + rows, (mean_z - offset) * scale)
        tl.store(columns_pointer + 5 * rows, mean_z)
        tl.store(columns_pointer + 6 * rows, highest_u)
        tl.store(columns_pointer + 7 * rows, 1.0 / total_u)
    else:
        tl.store(columns_pointer, 0.0)
        tl.store(columns_pointer + rows, 0.0)
    tl.store(columns_pointer + 3 * rows, highest_z)
    tl.store(columns_pointer + 4 * rows, 1.0 / total_z)
    if not tempered:
        total_task = total_z
    tl.store(columns_pointer + 8 * rows, 1.0 / total_task)
    label = tl.load(labels_pointer + row)
    taken = tl.load(z_pointer + label, mask=(label >= 0) & (label < vocabulary), other=_NAN).to(tl.float32)
    cross_entropy = tl.log(total_task) - (taken - highest_z).to(tl.float64)
    tl.store(columns_pointer + 2 * rows, tl.where(label < 0, 0.0, cross_entropy))


def row_columns(z: Tensor, u: Tensor | None, labels: Tensor, temperature: float) -> Tensor:
    """float32 `[COLUMNS, rows]`: the statistics, and what the gradient needs of each row.

    forward KL, reverse KL, cross entropy; maximum of z, 1 / its sum of exponentials, mean of (z - u) / T under q;
    maximum of u, 1 / its sum; 1 / the sum of z at temperature 1. Without a teacher columns 5 to 7 are not written.
    """
    columns = z.new_empty((COLUMNS, len(z)), dtype=torch.float32)
    if len(z):
        with torch.cuda.device_of(z):
            row_statistics_kernel[(len(z),)](
                z,
                u,
                labels,
                columns,
                len(z),
                z.shape[1],
                z.stride(0),
                0 if u is None else u.stride(0),
                float(temperature),
                1 / temperature,
                tempered=temperature != 1.0,
                tile=_TILE,
                num_warps=8,
            )
    return columns


def row_statistics(z: Tensor, u: Tensor | None, labels: Tensor, temperature: float = 1.0) -> RowStatistics:
    """Like `divergence.row_statistics`, for float32, bfloat16 and float16 logits; float32 results.

    A label outside the vocabulary gives NaN.
    """
    return RowStatistics(
        *row_columns(adjacent(z), None if u is None else adjacent(u), labels.contiguous(), temperature)[:3]
    )


def adjacent(logits: Tensor) -> Tensor:
    """The logits of a row side by side; rows may lie anywhere."""
    return logits if logits.stride(-1) == 1 else logits.contiguous()
