"""Codes and scales of other programs: the same values, and the quantizer that a recipe would name."""

from typing import Any

import pytest
import torch

from edgerazor.core.tensor import QuantizedTensor
from edgerazor.importers.grids import describe_quantizer, quantized_tensor


@pytest.mark.parametrize(
    ("lowest", "highest", "expected"),
    [
        (-1, 1, {"name": "ternary"}),
        (-7, 7, {"name": "int", "bits": 4, "symmetric": True}),
        (-8, 7, {"name": "int", "bits": 4, "symmetric": False, "scale": "signed_absmax"}),
    ],
)
def test_scales_stay_negative_only_where_codes_reach_further_on_one_side(
    lowest: int, highest: int, expected: dict[str, Any]
) -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(lowest, highest + 1, (6, 64), generator=generator).to(torch.int8)
    codes[:, 0], codes[:, 1] = lowest, highest
    scale = (torch.rand(6, 2, generator=generator) + 0.1).half()
    scale[::2, 0] *= -1
    found = quantized_tensor(codes, scale, 4, "w")
    given = QuantizedTensor(codes, scale, torch.full((6,), 7, dtype=torch.int8), 32)
    assert torch.equal(found.dequantize(), given.dequantize())
    assert bool((found.scale < 0).any()) == (lowest == -8)
    assert describe_quantizer(found) == {**expected, "group_size": 32}
