"""Where our quantizers and packed tensors differ from the original release (METHOD 10, F8 to F12, F17)."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from edgerazor.core.packing import pack, unpack
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import PlanError
from tests.plugins.quantizer_cases import REGISTRY, build


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("name", "values"), [("int", {"bits": 4}), ("ternary", {})])
def test_f8_scales_and_codes_are_computed_in_float32(name: str, values: dict[str, Any]) -> None:
    x = normal(16, 256).bfloat16()
    narrow, wide = (build(name, **values, group_size=64).quantize(each) for each in (x, x.float()))
    assert torch.equal(narrow.codes, wide.codes) and torch.equal(narrow.scale, wide.scale)
    groups = x.double().reshape(16, 4, 64).abs()
    raw = groups.amax(dim=-1) / 7 if name == "int" else 2 * groups.mean(dim=-1)
    torch.testing.assert_close(narrow.scale.double(), raw, rtol=2.0**-11, atol=0)
    exact = (x.double().reshape(16, 4, 64) / narrow.scale.double().unsqueeze(-1)).round()
    limit = 7 if name == "int" else 1
    assert torch.equal(narrow.codes.reshape(16, 4, 64).double(), exact.clamp(-limit, limit))


def test_f9_what_is_packed_is_not_quantized_again() -> None:
    """Quantizing values again would shrink them; codes and scales come back from a file as they went in."""
    quantizer = build("ternary", group_size=64)
    once = quantizer.quantize(normal(64, 256))
    shrunk = quantizer.quantize(once.dequantize()).dequantize().norm() / once.dequantize().norm()
    assert shrunk.item() == pytest.approx(0.858, abs=0.02)
    again = unpack(*pack(once), columns=256)
    assert torch.equal(again.codes, once.codes) and torch.equal(again.scale, once.scale)


@pytest.mark.parametrize("ratio", [0.3, 0.34, 0.49, 0.6])
def test_f10_ratios_that_rows_cannot_have_are_refused_with_those_they_can(ratio: float) -> None:
    with pytest.raises(ValidationError, match=r"'1(/\d)?'.*'1/\d'"):
        REGISTRY.params("quantizer", "sqmp", high_ratio=ratio)


def test_f10_the_ratio_that_was_obtained_is_told() -> None:
    assert build("sqmp", high_ratio=0).widths((40, 64)) == {1: 40 * 64}
    assert build("sqmp", high_ratio=1).widths((40, 64)) == {7: 40 * 64}
    assert build("sqmp", high_ratio="1/3").widths((40, 64)) == {1: 26 * 64, 7: 14 * 64}
    with pytest.raises(PlanError, match="no high part"):
        build("sqmp", high_ratio=0.125, placement="first_columns", group_size=32).check_shape((40, 128))


@pytest.mark.parametrize("ratio", [0.5, 0.125])
def test_f11_a_file_says_which_rows_are_wide_and_how_long_groups_are(ratio: float) -> None:
    """After packing nothing but the stored layout is needed: no quantizer, no ratio, no group size of 256."""
    stored = build("sqmp", high_ratio=ratio, group_size=32).quantize(normal(24, 64))
    layout, tensors = pack(stored)
    found = unpack(layout, tensors, columns=64)
    assert torch.equal(found.qmax, stored.qmax) and found.group_size == 32
    assert torch.equal(found.dequantize(), stored.dequantize())
    # Rows that no ratio would give come back as they are, so nothing was derived.
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    moved = QuantizedTensor(stored.codes[order], stored.scale[order], stored.qmax[order], 32)
    assert torch.equal(unpack(*pack(moved), columns=64).qmax, stored.qmax[order])


def test_f12_groups_that_would_cross_rows_are_refused_with_sizes_that_fit() -> None:
    with pytest.raises(PlanError, match="960 columns are not a multiple of group_size 256; 960, 480, 320, 192"):
        build("int", bits=4, group_size=256).check_shape((64, 960))
    x = normal(2, 4, 64)
    later = x.clone()
    later[:, 3] *= 100
    quantizer = build("int", bits=8, group_size=64)
    one, other = (quantizer.fake_quantize(each) for each in (x, later))
    assert torch.equal(one[:, :3], other[:, :3])


def test_f17_asymmetric_codes_cover_both_signs() -> None:
    quantizer = build("int", bits=4, symmetric=False, group_size=8)
    x = torch.tensor([[-2.15, -1.0, 0.01, 0.02, 0.0, 0.03, -0.5, 0.04], [-3.0, -1, -2, -1, -1, -2, -3, -1]])
    stored = quantizer.quantize(x)
    steps = stored.scale.float().repeat_interleave(8, dim=1)
    assert bool(((stored.dequantize() - x).abs() <= 0.51 * steps).all())
    assert stored.codes[0, 0] == -8 and stored.codes[1, 0] == -8
