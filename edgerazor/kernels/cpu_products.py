"""Matrix products on a CPU: how a processor should multiply, and the products.

Operands of half precision: a processor without instructions for them multiplies in float32 and rounds the result once,
which takes a third of the time of torch's emulation.

Two quantized matrices: a processor with instructions for int8 (VNNI) multiplies codes. Within a group their products
are summed as integers, exactly; the sums are scaled and added in float32. For groups of 256 columns this takes half to
two thirds of the time of the float32 product of values, and is closer to the exact result.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from edgerazor.kernels.processor import Processor

# Sums of one tile, as integers and as floats, stay in the processor's cache.
TILE_ELEMENTS = 2**19


class CodedMatrix(NamedTuple):
    """codes int8 `[N, C]` and scale `[N, G]`, one per group of C / G columns."""

    codes: Tensor
    scale: Tensor


class CodedOperands(NamedTuple):
    """Both sides of a product: rows, and the weight that they are multiplied by."""

    x: CodedMatrix
    weight: CodedMatrix


def emulated(dtype: torch.dtype, device: torch.device, processor: Processor) -> bool:
    """Whether this is a half precision for whose products the processor has no instructions."""
    if device.type != "cpu":
        return False
    return {torch.bfloat16: not processor.bfloat16, torch.float16: not processor.float16}.get(dtype, False)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, processor: Processor) -> Tensor:
    """`x [..., C] @ weight [R, C].T + bias [R]`, all of one dtype, in that dtype.

    For many rows: for a few, as in generation, widening the weight would cost more than emulation.
    """
    if not emulated(x.dtype, x.device, processor):
        return functional.linear(x, weight, bias)
    return functional.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)


def matrix_product(a: Tensor, b: Tensor, dtype: torch.dtype, processor: Processor) -> Tensor:
    """`a [N, K] @ b [K, M]` of one dtype, in `dtype`; where the device can, float32 sums reach it unrounded."""
    if a.is_cuda and a.dtype.itemsize < 4 and dtype == torch.float32:
        return torch.mm(a, b, out_dtype=torch.float32)  # type: ignore[call-overload,no-any-return]
    if emulated(a.dtype, a.device, processor):
        a, b = a.float(), b.float()
    return torch.mm(a, b).to(dtype)


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
    x_scale, weight_scale = (_each_group(matrix.scale, groups) for matrix in operands)
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
