"""The gradient of given scales in one pass: the twin of `kernels.scale_gradient.scale_gradient`."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from edgerazor.kernels.reference import GroupRule
from edgerazor.kernels.triton.quantize import HALF_TO_EVEN

_TILE = 4096


@triton.jit
def scale_gradient_kernel(  # noqa: PLR0917
    x_pointer,
    gradient_pointer,
    given_pointer,
    qmax_pointer,
    result_pointer,
    groups,
    groups_per_row,
    qmax_row_stride,
    qmax_group_stride,
    kind: tl.constexpr,
    qmax: tl.constexpr,
    group_size: tl.constexpr,
    tile_groups: tl.constexpr,
    tile_columns: tl.constexpr,
):
    """One program per `tile_groups` groups; without `qmax_pointer` the highest code is `qmax` everywhere."""
    group = tl.program_id(0).to(tl.int64) * tile_groups + tl.arange(0, tile_groups)
    column = tl.arange(0, tile_columns)
    live = group < groups
    inside = live[:, None] & (column < group_size)[None, :]
    place = group[:, None] * group_size + column[None, :]
    x = tl.load(x_pointer + place, mask=inside, other=0.0).to(tl.float32)
    gradient = tl.load(gradient_pointer + place, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(given_pointer + group, mask=live, other=1.0).to(tl.float32)
    highest_code = qmax
    if qmax_pointer is not None:
        where = (group // groups_per_row) * qmax_row_stride + (group % groups_per_row) * qmax_group_stride
        highest_code = tl.load(qmax_pointer + where, mask=live, other=1).to(tl.float32)[:, None]
    lowest_code = -highest_code
    if kind == "given_asymmetric":
        lowest_code = -1 - highest_code

    steps = tl.div_rn(x, tl.broadcast_to(scale[:, None], x.shape))
    clamped = tl.minimum(tl.maximum(steps, lowest_code), highest_code)
    # A NaN stays one: the comparison fails, so nothing is put in its place.
    slope = tl.where(
        (steps < lowest_code) | (steps > highest_code), clamped, (clamped + HALF_TO_EVEN) - HALF_TO_EVEN - steps
    )
    tl.store(result_pointer + group, tl.sum(gradient * slope, axis=1), mask=live)


def scale_gradient(x: Tensor, gradient: Tensor, rule: GroupRule, group_size: int | None) -> Tensor:
    """Like `kernels.scale_gradient.scale_gradient`, for groups of at most `quantize.LARGEST_GROUP`."""
    assert rule.given is not None
    size = x.shape[-1] if group_size is None else group_size
    per_row = x.shape[-1] // size
    result = x.new_empty((*x.shape[:-1], per_row), dtype=torch.float32)
    if not result.numel():
        return result
    qmax = rule.qmax.contiguous() if isinstance(rule.qmax, Tensor) else None
    columns = triton.next_power_of_2(size)
    tile = max(1, _TILE // columns)
    with torch.cuda.device_of(x):
        scale_gradient_kernel[(triton.cdiv(result.numel(), tile),)](
            x.contiguous(),
            gradient.contiguous(),
            rule.given.contiguous(),
            qmax,
            result,
            result.numel(),
            per_row,
            0 if qmax is None else qmax.shape[1] if qmax.ndim == 2 else 1,
            int(qmax is not None and qmax.ndim == 2),
            kind=rule.scale,
            qmax=rule.qmax if qmax is None else 1,
            group_size=size,
            tile_groups=tile,
            tile_columns=columns,
            num_warps=min(16, max(4, columns // 1024)),
        )
    return result
