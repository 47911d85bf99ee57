"""Cosine similarity of rows in one read of both: the twin of `similarity.row_cosine` (KERNELS 3)."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from edgerazor.kernels import similarity

_TILE = 1024
_SMALLEST_NORM = tl.constexpr(similarity.SMALLEST_NORM)


@triton.jit
def similarity_kernel(  # noqa: PLR0917
    a_pointer, b_pointer, cosine_pointer, width, a_stride, b_stride, tile: tl.constexpr
):
    """One program per row."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, tile)
    product = tl.zeros((tile,), tl.float32)
    square_a, square_b = product, product
    for start in range(0, width, tile):
        inside = start + lane < width
        a = tl.load(a_pointer + row * a_stride + start + lane, mask=inside, other=0.0).to(tl.float32)
        b = tl.load(b_pointer + row * b_stride + start + lane, mask=inside, other=0.0).to(tl.float32)
        product += a * b
        square_a += a * a
        square_b += b * b
    norm_a = tl.maximum(tl.sqrt(tl.sum(square_a, axis=0)), _SMALLEST_NORM)
    norm_b = tl.maximum(tl.sqrt(tl.sum(square_b, axis=0)), _SMALLEST_NORM)
    tl.store(cosine_pointer + row, tl.div_rn(tl.div_rn(tl.sum(product, axis=0), norm_a), norm_b))


def row_cosine(a: Tensor, b: Tensor) -> Tensor:
    """Like `similarity.row_cosine`, for float32, bfloat16 and float16."""
    rows_a, rows_b = (tensor.reshape(-1, tensor.shape[-1]).contiguous() for tensor in (a, b))
    cosine = torch.empty(a.shape[:-1], dtype=torch.float32, device=a.device)
    if cosine.numel():
        with torch.cuda.device_of(a):
            similarity_kernel[(len(rows_a),)](
                rows_a, rows_b, cosine, a.shape[-1], rows_a.stride(0), rows_b.stride(0), tile=_TILE, num_warps=4
            )
    return cosine
