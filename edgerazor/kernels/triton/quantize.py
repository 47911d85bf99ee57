"""Scales, codes and values of groups in one pass: the twin of `reference.quantize` and `reference.fake_quantize`.

Bit for bit the reference's (KERNELS 1.1): float32 inside, the sum behind a mean in float64, correctly rounded division.
A NaN reaches every value of its group: the magnitudes are compared as integers, where a NaN is the largest of all.

Weights, activations, keys and values take the same kernel. Up to three leading axes may have any strides, so a
transposed value `[batch, heads, seq, head_dim]` is read where it lies; what is written is contiguous.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from edgerazor.kernels import reference
from edgerazor.kernels.reference import GroupRule

LARGEST_GROUP = 2**16
_TILE = 4096
_FLOOR = tl.constexpr(reference.FLOOR)
_SMALLEST = tl.constexpr(reference.SMALLEST_SCALE)
_LARGEST = tl.constexpr(reference.LARGEST_SCALE)
_LARGEST_SHARED = tl.constexpr(reference.LARGEST_SHARED_SCALE)
HALF_TO_EVEN = tl.constexpr(1.5 * 2**23)


@triton.jit
def _scale_of_data(x, qmax, multiplier, kind: tl.constexpr, scale_dtype: tl.constexpr, group_size: tl.constexpr):
    """Scales `[groups]` of `x [groups, columns]`, rounded as stored; `qmax` is a constant or, if mixed, `[groups]`."""
    magnitude = x.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    highest = tl.max(magnitude, axis=1).to(tl.float32, bitcast=True)
    if kind == "signed_asymmetric":
        raw = tl.div_rn(tl.maximum(highest, _FLOOR), qmax + 1.0)
    elif kind == "asymmetric":
        up, down = tl.div_rn(tl.max(x, axis=1), qmax * 1.0), tl.div_rn(tl.min(x, axis=1), -1.0 - qmax)
        raw = tl.maximum(tl.maximum(up, down), _FLOOR)
    elif kind == "absmax":
        raw = tl.div_rn(tl.maximum(highest, _FLOOR), qmax * 1.0)
    else:
        total = tl.sum(tl.abs(x).to(tl.float64), axis=1)
        raw = tl.maximum(multiplier * (total / group_size).to(tl.float32), _FLOOR)
        if kind == "mixed":
            raw = tl.where(qmax == 1, raw, tl.div_rn(tl.maximum(highest, _FLOOR), qmax))
    if scale_dtype == "float16":
        raw = tl.minimum(tl.maximum(raw, _SMALLEST), _LARGEST).to(tl.float16).to(tl.float32)
    elif scale_dtype == "float16_bfloat16":  # half to even in the upper 16 bits, which every backend does alike
        bits = tl.minimum(tl.maximum(raw, _SMALLEST), _LARGEST_SHARED).to(tl.int32, bitcast=True)
        raw = ((bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000).to(tl.float32, bitcast=True)
    if kind == "signed_asymmetric":
        negative = (tl.max(x, axis=1) > -tl.min(x, axis=1)) & (highest >= _FLOOR)
        if scale_dtype != "float32":
            negative = negative & (tl.div_rn(highest, qmax + 1.0) >= _SMALLEST)
        raw = tl.where(negative, -raw, raw)
    return tl.where(highest == highest, raw, highest)  # noqa: PLR0124


@triton.jit
def quantize_kernel(  # noqa: PLR0917
    x_pointer,
    qmax_pointer,
    given_pointer,
    codes_pointer,
    scale_pointer,
    value_pointer,
    groups,
    groups_per_row,
    size_1,
    size_2,
    stride_0,
    stride_1,
    stride_2,
    qmax_row_stride,
    qmax_group_stride,
    multiplier,
    kind: tl.constexpr,
    qmax: tl.constexpr,
    scale_dtype: tl.constexpr,
    group_size: tl.constexpr,
    tile_groups: tl.constexpr,
    tile_columns: tl.constexpr,
):
    """One program per `tile_groups` groups; a pointer that is None is neither written nor read."""
    group = tl.program_id(0).to(tl.int64) * tile_groups + tl.arange(0, tile_groups)
    column = tl.arange(0, tile_columns)
    live = group < groups
    inside = live[:, None] & (column < group_size)[None, :]
    row, part = group // groups_per_row, group % groups_per_row
    start = (row // size_2 // size_1) * stride_0 + (row // size_2 % size_1) * stride_1 + (row % size_2) * stride_2
    x = tl.load(x_pointer + (start + part * group_size)[:, None] + column[None, :], mask=inside, other=0.0)
    x = x.to(tl.float32)

    highest_code = qmax
    if qmax_pointer is not None:
        where = row * qmax_row_stride + part * qmax_group_stride
        highest_code = tl.load(qmax_pointer + where, mask=live, other=1).to(tl.float32)
    if given_pointer is not None:
        scale = tl.load(given_pointer + group, mask=live, other=1.0).to(tl.float32)
    else:
        scale = _scale_of_data(x, highest_code, multiplier, kind, scale_dtype, group_size)
    if qmax_pointer is not None:
        highest_code = highest_code[:, None]
    lowest_code = -highest_code
    if kind == "asymmetric" or kind == "signed_asymmetric" or kind == "given_asymmetric":  # noqa: PLR1714
        lowest_code = -1 - highest_code

    if kind == "absmean":  # rounding x / scale gives the same without a division
        codes = (x > (scale * 0.5)[:, None]).to(tl.float32) - (x < (scale * -0.5)[:, None]).to(tl.float32)
    else:
        quotient = tl.div_rn(x, tl.broadcast_to(scale[:, None], x.shape))
        clamped = tl.minimum(tl.maximum(quotient, lowest_code), highest_code)
        codes = tl.where(quotient == quotient, (clamped + HALF_TO_EVEN) - HALF_TO_EVEN, 0.0)  # noqa: PLR0124

    target = group[:, None] * group_size + column[None, :]
    if codes_pointer is not None:
        tl.store(codes_pointer + target, codes.to(tl.int8), mask=inside)
        tl.store(scale_pointer + group, scale, mask=live)
    if value_pointer is not None:
        tl.store(value_pointer + target, codes * scale[:, None], mask=inside)


def quantize(x: Tensor, rule: GroupRule, group_size: int | None) -> tuple[Tensor, Tensor]:
    """Like `reference.quantize`, for float32, bfloat16 and float16 and groups of at most `LARGEST_GROUP`."""
    made = _launch(x, rule, group_size, codes=True, value=None)
    return made.codes, made.scale


def fake_quantize(x: Tensor, rule: GroupRule, group_size: int | None, *, dtype: torch.dtype | None = None) -> Tensor:
    """Like `reference.fake_quantize`; codes and scales never leave the chip."""
    return _launch(x, rule, group_size, codes=False, value=dtype or x.dtype).value


def quantize_dequantize(
    x: Tensor, rule: GroupRule, group_size: int | None, *, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Like `reference.quantize_dequantize`, reading `x` once."""
    return _launch(x, rule, group_size, codes=True, value=dtype or x.dtype)


class _Made(NamedTuple):
    """What a launch wrote; a part that was not asked for is empty."""

    codes: Tensor
    scale: Tensor
    value: Tensor


def _launch(x: Tensor, rule: GroupRule, group_size: int | None, *, codes: bool, value: torch.dtype | None) -> _Made:
    size = x.shape[-1] if group_size is None else group_size
    per_row = x.shape[-1] // size
    x, sizes, strides = _rows(x)
    made = _Made(
        x.new_empty(x.shape if codes else 0, dtype=torch.int8),
        x.new_empty(
            (*x.shape[:-1], per_row) if codes else 0,
            dtype=reference.stored_dtype(rule.scale_dtype),
        ),
        x.new_empty(0 if value is None else x.shape, dtype=value),
    )
    groups = x.numel() // size
    if not groups:
        return made
    qmax = rule.qmax.contiguous() if isinstance(rule.qmax, Tensor) else None
    columns = triton.next_power_of_2(size)
    tile = max(1, _TILE // columns)
    with torch.cuda.device_of(x):
        quantize_kernel[(triton.cdiv(groups, tile),)](
            x,
            qmax,
            None if rule.given is None else rule.given.contiguous(),
            made.codes if codes else None,
            made.scale if codes else None,
            None if value is None else made.value,
            groups,
            per_row,
            *sizes,
            *strides,
            0 if qmax is None else qmax.shape[1] if qmax.ndim == 2 else 1,
            int(qmax is not None and qmax.ndim == 2),
            float(rule.multiplier),
            kind=rule.scale,
            qmax=rule.qmax if qmax is None else 1,
            scale_dtype=rule.scale_dtype,
            group_size=size,
            tile_groups=tile,
            tile_columns=columns,
            num_warps=min(16, max(4, columns // 1024)),
        )
    return made


def _rows(x: Tensor) -> tuple[Tensor, tuple[int, int], tuple[int, int, int]]:
    """`x`, copied only if it must be, with the last two sizes and all three strides of its leading axes."""
    if x.is_contiguous() or x.ndim > 4 or x.stride(-1) != 1:
        x = x.contiguous()
        return x, (1, x.numel() // max(1, x.shape[-1])), (0, 0, x.shape[-1])
    _, size_1, size_2 = (1, 1, 1, *x.shape[:-1])[-3:]
    stride_0, stride_1, stride_2 = (0, 0, 0, *x.stride()[:-1])[-3:]
    return x, (size_1, size_2), (stride_0, stride_1, stride_2)
