"""Quantization, defined. Every faster version must return the same bits (METHOD 1.2 and 1.3, KERNELS 1.1).

Shapes: `groups` is `[..., g]`, float32, one group of consecutive columns per row; a scale is `[..., 1]`, float32.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

FLOOR = 1e-5
SMALLEST_SCALE = 2.0**-14
LARGEST_SCALE = 65504.0
LARGEST_SHARED_SCALE = 65280.0  # of the numbers that float16 and bfloat16 both hold
_TILE = 512
_IN_CACHE = 2**17  # elements; the float32 values of more would go to memory that is new each time


ScaleDtype = Literal["float16", "float16_bfloat16", "float32"]


class GroupRule(NamedTuple):
    """How the groups of one tensor get their scales and codes (METHOD 1.3 and 2.1).

    Attributes:
        scale: `absmean` (ternary, qmax 1), `absmax`, `asymmetric` (codes reach -qmax-1), `signed_asymmetric` (the
            same, with scales that may be negative so that the largest magnitude has that code), or `mixed`: absmean
            where qmax is 1, absmax elsewhere. `given` and `given_asymmetric` take no statistics.
        qmax: the highest code; for `mixed`, and at will for given scales, int8 `[R]` or `[R, G]`, R the product of the
            leading axes.
        multiplier: of the mean magnitude.
        scale_dtype: float16 as files hold it; float16_bfloat16, those that bfloat16 holds, too; or float32.
        given: scales `[R, G]` as `round_scale` leaves them. A NaN in a group does not reach them: its code is 0.
    """

    scale: Literal["absmean", "absmax", "asymmetric", "signed_asymmetric", "mixed", "given", "given_asymmetric"]
    qmax: Tensor | int
    multiplier: float = 2.0
    scale_dtype: ScaleDtype = "float16"
    given: Tensor | None = None


def quantize(x: Tensor, rule: GroupRule, group_size: int | None) -> tuple[Tensor, Tensor]:
    """Codes int8 `[..., C]` and scale `[..., G]` in the rule's dtype, for `x [..., C]` of any float dtype."""
    groups = split_groups(x, group_size)
    scale, codes = _scale_and_codes(groups, rule)
    return _numbers(codes).to(torch.int8).reshape(x.shape), _stored(scale, rule)


def fake_quantize(x: Tensor, rule: GroupRule, group_size: int | None, *, dtype: torch.dtype | None = None) -> Tensor:
    """Codes times scale in float32, rounded once to `dtype` (that of `x` by default), in the shape of `x`."""
    scale, codes = _scale_and_codes(split_groups(x, group_size), rule)
    if rule.given is not None:
        codes = _numbers(codes)
    return codes.mul_(scale).reshape(x.shape).to(dtype or x.dtype)


def quantize_dequantize(
    x: Tensor, rule: GroupRule, group_size: int | None, *, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Codes and scale of `quantize`, then the value of `fake_quantize`."""
    scale, codes = _scale_and_codes(split_groups(x, group_size), rule)
    codes = _numbers(codes)
    integers = codes.to(torch.int8).reshape(x.shape)
    return integers, _stored(scale, rule), codes.mul_(scale).reshape(x.shape).to(dtype or x.dtype)


def split_groups(x: Tensor, group_size: int | None) -> Tensor:
    """View `x [..., C]` as float32 groups `[..., C / g, g]`; `None` is one group per row."""
    size = x.shape[-1] if group_size is None else group_size
    return x.to(torch.float32).reshape(*x.shape[:-1], x.shape[-1] // size, size)


def absmax_scale(groups: Tensor, qmax: Tensor | int) -> Tensor:
    """max(max |x|, 1e-5) / qmax."""
    # Two reductions without a copy of magnitudes between them.
    largest = torch.maximum(groups.amax(dim=-1, keepdim=True), -groups.amin(dim=-1, keepdim=True))
    return _quotient(largest.clamp_(min=FLOOR), qmax)


def absmean_scale(groups: Tensor, multiplier: float) -> Tensor:
    """max(multiplier * mean |x|, 1e-5); the sum is taken in float64, so its order does not matter."""
    mean = _quotient(absolute_sum(groups), groups.shape[-1])
    return (multiplier * mean.to(torch.float32)).clamp_(min=FLOOR)


def asymmetric_scale(groups: Tensor, qmax: int) -> Tensor:
    """max(max x / qmax, -min x / (qmax + 1), 1e-5): no zero point, one step more on the negative side."""
    highest = _quotient(groups.amax(dim=-1, keepdim=True), qmax)
    lowest = _quotient(groups.amin(dim=-1, keepdim=True), -(qmax + 1))
    return torch.maximum(highest, lowest).clamp_(min=FLOOR)


def signed_scale(groups: Tensor, qmax: int, scale_dtype: str) -> Tensor:
    """max(max |x|, 1e-5) / (qmax + 1), negative where max x > -min x: the largest magnitude gets code -qmax-1.

    Positive where the scale will be the smallest there is: no code reaches -qmax-1 there, and none tells the sign.
    """
    highest, lowest = groups.amax(dim=-1, keepdim=True), groups.amin(dim=-1, keepdim=True)
    largest = torch.maximum(highest, -lowest)
    negative = (highest > -lowest) & (largest >= smallest_signed(qmax, scale_dtype))
    size = _quotient(largest.clamp_(min=FLOOR), qmax + 1)
    return torch.where(negative, -size, size)


def smallest_signed(qmax: int, scale_dtype: str) -> float:
    """The magnitude that a group has to reach for its scale to be negative: below it the scale is the smallest."""
    return FLOOR if scale_dtype == "float32" else max(FLOOR, SMALLEST_SCALE * (qmax + 1))


def absolute_sum(groups: Tensor) -> Tensor:
    """Sum of |x| over the last axis in float64, `[..., 1]`, converted tile by tile to stay in cache."""
    if groups.device.type != "cpu" or torch.compiler.is_compiling():
        return groups.abs().sum(dim=-1, keepdim=True, dtype=torch.float64)
    flat = groups.reshape(-1, groups.shape[-1])
    result = flat.new_empty((flat.shape[0], 1), dtype=torch.float64)
    buffer = flat.new_empty((min(_TILE, flat.shape[0]), flat.shape[1]), dtype=torch.float64)
    for start in range(0, flat.shape[0], _TILE):
        tile = buffer[: min(_TILE, flat.shape[0] - start)]
        torch.abs(tile.copy_(flat[start : start + _TILE]), out=tile)
        torch.sum(tile, dim=-1, keepdim=True, out=result[start : start + _TILE])
    return result.reshape(*groups.shape[:-1], 1)


def stored_dtype(scale_dtype: str) -> torch.dtype:
    """The dtype in which such scales are kept."""
    return torch.float32 if scale_dtype == "float32" else torch.float16


def round_scale(scale: Tensor, scale_dtype: str) -> Tensor:
    """A positive scale as it will be stored, in float32: float16 is clamped to its normal numbers and rounded."""
    if scale_dtype == "float32":
        return scale
    if scale_dtype == "float16_bfloat16":
        return scale.clamp(SMALLEST_SCALE, LARGEST_SHARED_SCALE).to(torch.bfloat16).to(torch.float32)
    return scale.clamp(SMALLEST_SCALE, LARGEST_SCALE).to(torch.float16).to(torch.float32)


def round_signed_scale(scale: Tensor, scale_dtype: str) -> Tensor:
    """As `round_scale`, of magnitudes; the sign stays."""
    return torch.copysign(round_scale(scale.abs(), scale_dtype), scale)


def round_codes(groups: Tensor, scale: Tensor, lowest: Tensor | int, highest: Tensor | int) -> Tensor:
    """clamp(round half to even(x / s), lowest, highest), still float32, by true division."""
    codes = torch.div(groups, scale).round_()
    return clamp(codes, lowest, highest, out=codes)


def clamp(x: Tensor, lowest: Tensor | int, highest: Tensor | int, *, out: Tensor) -> Tensor:
    """`x` between two bounds, written over `out`."""
    if isinstance(lowest, Tensor) or isinstance(highest, Tensor):
        # torch.clamp between tensors that are broadcast takes five times as long.
        torch.maximum(x, torch.as_tensor(lowest), out=out)
        return torch.minimum(out, torch.as_tensor(highest), out=out)
    return torch.clamp(x, lowest, highest, out=out)


def dequantize(codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """codes `[..., C]` times scale `[..., G]` in float32, rounded once to `dtype`."""
    if codes.device.type == "cpu" and codes.numel() > _IN_CACHE and dtype.itemsize < 4:
        return _dequantize_in_tiles(codes, scale, dtype)
    groups = codes.to(torch.float32, copy=True).reshape(*scale.shape, codes.shape[-1] // scale.shape[-1])
    return groups.mul_(scale.to(torch.float32).unsqueeze(-1)).reshape(codes.shape).to(dtype)


def _dequantize_in_tiles(codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """As `dequantize`, in half the time or less: without float32 values of the whole."""
    scales = scale.reshape(-1, 1)
    groups = codes.reshape(len(scales), -1)
    value = groups.new_empty(groups.shape, dtype=dtype)
    rows = max(1, _IN_CACHE // groups.shape[1])
    buffer = groups.new_empty((rows, groups.shape[1]), dtype=torch.float32)
    for start in range(0, len(groups), rows):
        part = groups[start : start + rows]
        tile = buffer[: len(part)].copy_(part).mul_(scales[start : start + rows].float())
        value[start : start + rows] = tile
    return value.reshape(codes.shape)


def _scale_and_codes(groups: Tensor, rule: GroupRule) -> tuple[Tensor, Tensor]:
    """Scale `[..., G, 1]` rounded as stored, and codes `[..., G, g]`, both float32."""
    qmax = rule.qmax
    if isinstance(qmax, Tensor):
        qmax = qmax.to(torch.float32).reshape(*groups.shape[:-2], -1, 1)
    if rule.given is not None:
        scale = rule.given.to(torch.float32).reshape(*groups.shape[:-1], 1)
        return scale, round_codes(groups, scale, *code_range(rule, qmax))
    if isinstance(qmax, Tensor):
        scale = torch.where(qmax == 1, absmean_scale(groups, rule.multiplier), absmax_scale(groups, qmax))
    elif rule.scale == "signed_asymmetric":
        scale = signed_scale(groups, qmax, rule.scale_dtype)
    elif rule.scale == "asymmetric":
        scale = asymmetric_scale(groups, qmax)
    else:
        scale = absmean_scale(groups, rule.multiplier) if rule.scale == "absmean" else absmax_scale(groups, qmax)
    rounded = round_signed_scale if rule.scale == "signed_asymmetric" else round_scale
    scale = rounded(scale, rule.scale_dtype)
    return scale, round_codes(groups, scale, *code_range(rule, qmax))


def code_range(rule: GroupRule, qmax: Tensor | int) -> tuple[Tensor | int, Tensor | int]:
    """The lowest and the highest code, in the shape of `qmax`."""
    return -qmax - int(rule.scale.endswith("asymmetric")), qmax


def _numbers(codes: Tensor) -> Tensor:
    """A NaN has no integer, here it is 0; its group carries it in the scale, unless that is given."""
    # The compiler makes slow code of nan_to_num, eager mode of a comparison.
    return codes.where(codes == codes, 0.0) if torch.compiler.is_compiling() else codes.nan_to_num_(0.0)  # noqa: PLR0124


def _stored(scale: Tensor, rule: GroupRule) -> Tensor:
    return scale.squeeze(-1).to(stored_dtype(rule.scale_dtype))


def _quotient(x: Tensor, divisor: Tensor | int) -> Tensor:
    """True division: by a Python number, CUDA would multiply by its reciprocal instead."""
    return x / (divisor if isinstance(divisor, Tensor) else x.new_full((), divisor))
