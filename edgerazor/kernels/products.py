"""Matrix products of half-precision operands, of many rows.

A processor without instructions for them multiplies in float32 and rounds the result once, which takes a third of the
time of torch's emulation. For a few rows, as in generation, widening the matrix would cost more.
"""

import torch
from torch import Tensor
from torch.nn import functional

from edgerazor.kernels.processor import has_instructions

# x86, then ARM.
_INSTRUCTIONS = {
    torch.bfloat16: ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"),
    torch.float16: ("avx512_fp16", "amx_fp16", "fp16_arith"),
}


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x [..., C] @ weight [R, C].T + bias [R]`, all of one dtype, in that dtype."""
    if not emulated(x.dtype, x.device):
        return functional.linear(x, weight, bias)
    return functional.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)


def matrix_product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """`a [N, K] @ b [K, M]` of one dtype, in `dtype`; where the device can, float32 sums reach it unrounded."""
    if a.is_cuda and a.dtype.itemsize < 4 and dtype == torch.float32:
        return torch.mm(a, b, out_dtype=torch.float32)  # type: ignore[call-overload,no-any-return]
    if emulated(a.dtype, a.device):
        a, b = a.float(), b.float()
    return torch.mm(a, b).to(dtype)


def emulated(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether this is a half precision for whose products the processor has no instructions."""
    return device.type == "cpu" and dtype in _INSTRUCTIONS and has_instructions(*_INSTRUCTIONS[dtype]) is False
