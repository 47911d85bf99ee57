"""A quantized linear layer in separate steps of autograd, which the one function is compared with."""

from typing import Any

from torch import Tensor
from torch.nn import functional


def straight(x: Tensor, weight: Tensor, bias: Tensor | None, wq: Any, xq: Any) -> Tensor:
    """The output `[..., R]` of `x [..., C]`, each quantizer by its own `fake_quantize`; either may be None."""
    value = xq.fake_quantize(x) if xq else x
    return functional.linear(value, wq.fake_quantize(weight) if wq else weight, bias)
