"""Values that no format can hold."""

import torch
from torch import Tensor

from edgerazor.core.tensor import QuantizedTensor


def scale_problem(value: QuantizedTensor) -> str:
    """What is wrong with the scales of a matrix; "" if nothing is."""
    if value.scale.dtype != torch.float16:
        return f"scales are {str(value.scale.dtype).removeprefix('torch.')}; train with scale_dtype: float16"
    scale = value.scale.float()
    bad = int((~torch.isfinite(scale)).sum())
    if bad:
        return f"{bad} scales are not finite"
    groups = value.codes.reshape(*scale.shape, -1)
    empty = int(((scale == 0) & (groups != 0).any(-1)).sum())
    return f"{empty} scales are 0 with codes that are not" if empty else ""


def float_problem(value: Tensor) -> str:
    """What is wrong with a tensor that is not quantized; "" if nothing is."""
    if value.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"is {str(value.dtype).removeprefix('torch.')}; expected a float"
    return "" if bool(torch.isfinite(value).all()) else "holds values that are not finite"
