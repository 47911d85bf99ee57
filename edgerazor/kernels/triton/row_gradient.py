"""Gradient of the weighted rows with respect to the student's logits: the twin of `divergence.row_gradient`.

Two reads of the logits and one write: the statistics first, then each element from its own two logits, so the
gradient may take the memory of the student's logits (KERNELS 2.2).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from edgerazor.kernels.divergence import RowStatistics, RowWeights
from edgerazor.kernels.triton.row_statistics import adjacent, row_columns

_TILE = 4096


@triton.jit
def row_gradient_kernel(  # noqa: PLR0917
    z_pointer,
    u_pointer,
    labels_pointer,
    forward_pointer,
    reverse_pointer,
    task_pointer,
    columns_pointer,
    gradient_pointer,
    rows,
    vocabulary,
    z_stride,
    u_stride,
    gradient_stride,
    temperature,
    inverse,
    tempered: tl.constexpr,
    tile: tl.constexpr,
):
    """One program per row and tile; `columns_pointer` holds what `row_columns` gives."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.program_id(1) * tile + tl.arange(0, tile)
    inside = lane < vocabulary
    columns_pointer += row
    label = tl.load(labels_pointer + row)
    task = tl.where(label < 0, 0.0, tl.load(task_pointer + row).to(tl.float32))
    z = tl.load(z_pointer + row * z_stride + lane, mask=inside, other=-float("inf")).to(tl.float32)
    shifted = z - tl.load(columns_pointer + 3 * rows)
    q = tl.exp(shifted) * tl.load(columns_pointer + 8 * rows)
    gradient = task * (q - (lane == label).to(tl.float32))
    if u_pointer is not None:
        u = tl.load(u_pointer + row * u_stride + lane, mask=inside, other=-float("inf")).to(tl.float32)
        forward = tl.load(forward_pointer + row).to(tl.float32) * temperature
        reverse = tl.load(reverse_pointer + row).to(tl.float32) * temperature
        if tempered:
            q = tl.exp(shifted * inverse) * tl.load(columns_pointer + 4 * rows)
        p = tl.exp((u - tl.load(columns_pointer + 6 * rows)) * inverse) * tl.load(columns_pointer + 7 * rows)
        above_mean = (z - u) * inverse - tl.load(columns_pointer + 5 * rows)
        gradient += tl.where(q == 0, 0.0, q * (reverse * above_mean)) + forward * (q - p)
    tl.store(gradient_pointer + row * gradient_stride + lane, gradient, mask=inside)


def row_gradient(
    z: Tensor,
    u: Tensor | None,
    labels: Tensor,
    weights: RowWeights,
    temperature: float = 1.0,
    *,
    out: Tensor | None = None,
) -> tuple[Tensor, RowStatistics]:
    """Like `divergence.row_gradient`, for float32, bfloat16 and float16 logits.

    The statistics are float32; a label outside the vocabulary gives NaN statistics.
    """
    out = torch.empty_like(z) if out is None else out
    z, u, labels = adjacent(z), None if u is None else adjacent(u), labels.contiguous()
    columns = row_columns(z, u, labels, temperature)
    gradient = out if out.stride(-1) == 1 else torch.empty_like(z)
    if z.numel():
        with torch.cuda.device_of(z):
            row_gradient_kernel[(len(z), triton.cdiv(z.shape[1], _TILE))](
                z,
                u,
                labels,
                *(factor.contiguous() for factor in weights),
                columns,
                gradient,
                len(z),
                z.shape[1],
                z.stride(0),
                0 if u is None else u.stride(0),
                gradient.stride(0),
                float(temperature),
                1 / temperature,
                tempered=temperature != 1.0,
                tile=_TILE,
                num_warps=8,
            )
    return out if gradient is out else out.copy_(gradient), RowStatistics(*columns[:3])
