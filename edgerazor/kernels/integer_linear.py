"""The product of two quantized matrices from their codes, on processors with instructions for int8 (VNNI).

Within a group the products of codes are summed as integers, exactly; the sums are scaled and added in float32. For
groups of 256 columns this takes half to two thirds of the time of the float32 product of values, and is closer to the
exact result.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from edgerazor.kernels.processor import has_instructions
from edgerazor.kernels.products import emulated

SHORTEST_GROUP = 256
# Sums of one tile, as integers and as floats, stay in the processor's cache.
TILE_ELEMENTS = 2**19
_INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8")


class CodedMatrix(NamedTuple):
    """codes int8 `[N, C]` and scale `[N, G]`, one per group of C / G columns."""

    codes: Tensor
    scale: Tensor


class CodedOperands(NamedTuple):
    """Both sides of a product: rows, and the weight that they are multiplied by."""

    x: CodedMatrix
    weight: CodedMatrix


def multiplies_codes(
    columns: int, group_sizes: tuple[int | None, ...], dtype: torch.dtype, device: torch.device
) -> bool:
    """Whether `integer_linear` can take the place of a product of values in `dtype`, and is faster.

    Args:
        columns: that both matrices have.
        group_sizes: of each of them; None is one group per row.
    """
    # Against native half-precision products it has not been measured.
    if device.type != "cpu" or not (dtype == torch.float32 or emulated(dtype, device)):
        return False
    onednn = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    if not onednn or not has_instructions(*_INSTRUCTIONS):
        return False
    sizes = [columns if size is None else size for size in group_sizes]
    return min(sizes) >= SHORTEST_GROUP and max(sizes) % min(sizes) == 0


def integer_linear(operands: CodedOperands, bias: Tensor | None = None, *, out: Tensor | None = None) -> Tensor:
    """float32 `[N, R]`: values of `x [N, C]` times values of `weight [R, C]` transposed, plus `bias [R]`.

    Args:
        out: where the result goes.
    """
    x, weight = operands
    rows, columns = x.codes.shape
    result = x.scale.new_empty(rows, len(weight.codes), dtype=torch.float32) if out is None else out
    groups = max(x.scale.shape[1], weight.scale.shape[1])
    # One row of scales per group, each contiguous.
    x_scale, weight_scale = (_each_group(one.scale, groups) for one in (x, weight))
    tile = max(1, TILE_ELEMENTS // max(rows, 1))
    sums = x.codes.new_empty(rows * min(tile, len(weight.codes)), dtype=torch.int32)
    scaled = torch.empty_like(sums, dtype=torch.float32)
    for start in range(0, len(weight.codes), tile):
        part = slice(start, start + tile)
        codes, total = weight.codes[part], result[:, part]
        integers, floats = (buffer[: total.numel()].view(total.shape) for buffer in (sums, scaled))
        for group in range(groups):
            of_group = slice(group * columns // groups, (group + 1) * columns // groups)
            torch._int_mm(x.codes[:, of_group], codes[:, of_group].t(), out=integers)
            floats.copy_(integers).mul_(weight_scale[group, part])
            if group == 0:
                torch.mul(floats, x_scale[group].unsqueeze(-1), out=total)
            else:
                total.addcmul_(floats, x_scale[group].unsqueeze(-1))
    return result if bias is None else result.add_(bias)


def _each_group(scale: Tensor, groups: int) -> Tensor:
    """Scales `[N, G]` as float32 `[groups, N]`, repeated where a group of theirs spans several."""
    return scale.float().t().repeat_interleave(groups // scale.shape[1], dim=0).contiguous()
