"""From codes and scales as another program stored them to ours, and to the quantizer of a recipe that says the same."""

from typing import Any

import torch
from torch import Tensor

from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import CheckpointError
from edgerazor.kernels.reference import SMALLEST_SCALE
from edgerazor.schemas.row_ranges import format_rows


def quantized_tensor(codes: Tensor, scale: Tensor, bits: int, where: str) -> QuantizedTensor:
    """The same values as a tensor of ours: rows of -1, 0 and 1 are ternary, neighbours with one scale are one group.

    Args:
        codes: int8 `[R, C]`, within -2^(bits-1) and 2^(bits-1) - 1.
        scale: `[R, G]`, any float dtype.
        bits: of the codes.
        where: the tensor, for messages.

    Raises:
        CheckpointError: a scale that is used is no normal float16 number.
    """
    rows, columns = codes.shape
    if bool((scale < 0).any()) and int(codes.min()) > -(2 ** (bits - 1)):
        codes, scale = _with_positive_scales(codes, scale)
    stored = _float16(codes, scale, where)
    while stored.shape[1] > 1 and stored.shape[1] % 2 == 0 and torch.equal(stored[:, ::2], stored[:, 1::2]):
        stored = stored[:, ::2].contiguous()
    qmax = torch.full((rows,), 2 ** (bits - 1) - 1, dtype=torch.int8)
    if int(codes.min()) >= -int(qmax[0]):  # beyond that a row of narrow codes would be a wide one, too
        qmax[(codes.abs() <= 1).all(dim=1)] = 1
    return QuantizedTensor(codes, stored, qmax, columns // stored.shape[1])


def describe_quantizer(tensor: QuantizedTensor) -> dict[str, Any]:
    """The quantizer of a recipe that stands for such codes."""
    size: dict[str, Any] = {"group_size": tensor.group_size}
    widest = tensor.widest_qmax()
    kinds = [int(value) for value in widest.unique()]
    bits = kinds[-1].bit_length() + 1
    if kinds == [1] and tensor.symmetric:
        return {"name": "ternary", **size}
    if len(kinds) == 1:
        signed = {"scale": "signed_absmax"} if bool((tensor.scale < 0).any()) and not tensor.symmetric else {}
        return {"name": "int", "bits": bits, "symmetric": tensor.symmetric, **signed, **size}
    wide = (widest == kinds[-1]).nonzero().flatten().tolist()
    return {"name": "sqmp", "placement": "rows", "high_rows": format_rows(wide), "high_bits": bits, **size}


def _with_positive_scales(codes: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The same values where codes reach as far on both sides, as those of ternary and symmetric rows do."""
    signs = torch.where(scale < 0, -1, 1)
    return codes * signs.repeat_interleave(codes.shape[1] // scale.shape[1], dim=1).to(codes.dtype), scale.abs()


def _float16(codes: Tensor, scale: Tensor, where: str) -> Tensor:
    """Scales in float16; that of a group whose codes are all zero may be anything."""
    groups = codes.reshape(len(codes), scale.shape[1], -1)
    used = (groups != 0).any(dim=-1)
    stored = scale.to(torch.float16)
    exact = (stored.to(torch.float64) == scale.to(torch.float64)) & (stored.abs() >= SMALLEST_SCALE)
    if bool((used & ~exact).any()):
        row, group = (used & ~exact).nonzero()[0].tolist()
        raise CheckpointError(
            f"{where}: the scale {float(scale[row, group]):.6g} of row {row}, group {group} is no float16 number of "
            "magnitude 2^-14 or more, so that no packed checkpoint can hold it exactly"
        )
    return torch.where(used, stored, torch.tensor(SMALLEST_SCALE, dtype=torch.float16))
