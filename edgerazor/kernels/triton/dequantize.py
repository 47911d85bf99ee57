"""Codes times scale in one pass: the twin of `reference.dequantize` (KERNELS 1.1).

The backward pass of every quantized linear layer reads its input back this way.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from edgerazor.kernels import reference

LARGEST_GROUP = 2**16
_TILE = 4096


@triton.jit
def dequantize_kernel(  # noqa: PLR0917
    codes_pointer,
    scale_pointer,
    value_pointer,
    groups,
    group_size: tl.constexpr,
    tile_groups: tl.constexpr,
    tile_columns: tl.constexpr,
):
    """One program per `tile_groups` groups."""
    group = tl.program_id(0).to(tl.int64) * tile_groups + tl.arange(0, tile_groups)
    column = tl.arange(0, tile_columns)
    live = group < groups
    inside = live[:, None] & (column < group_size)[None, :]
    place = group[:, None] * group_size + column[None, :]
    codes = tl.load(codes_pointer + place, mask=inside, other=0).to(tl.float32)
    scale = tl.load(scale_pointer + group, mask=live, other=0.0).to(tl.float32)
    tl.store(value_pointer + place, codes * scale[:, None], mask=inside)


def dequantize(codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Like `reference.dequantize`, for values of float32, bfloat16 or float16."""
    codes, scale = codes.contiguous(), scale.contiguous()
    value = torch.empty(codes.shape, dtype=dtype, device=codes.device)
    if groups := scale.numel():
        size = codes.numel() // groups
        if size > LARGEST_GROUP:
            return reference.dequantize(codes, scale, dtype)
        columns = triton.next_power_of_2(size)
        tile = max(1, _TILE // columns)
        with torch.cuda.device_of(codes):
            dequantize_kernel[(triton.cdiv(groups, tile),)](
                codes,
                scale,
                value,
                groups,
                group_size=size,
                tile_groups=tile,
                tile_columns=columns,
                num_warps=min(16, max(4, columns // 1024)),
            )
    return value
