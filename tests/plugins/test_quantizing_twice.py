"""What a second quantization does, and latents that survive one (METHOD 1.5)."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.plugins.quantizer_cases import build, cases, examples

IDEMPOTENT = [case for case in cases() if case.values[0] == "int" or case.values == ("ternary", {"scale": "absmax"})]
absmean = pytest.mark.parametrize("multiplier", [1.0, 1.5, 2.0])


@pytest.mark.parametrize(("name", "values"), IDEMPOTENT)
@given(data=st.data())
def test_float32_values_are_a_fixed_point(name: str, values: dict[str, Any], data: st.DataObject) -> None:
    """Symmetric: with scales of either type. Asymmetric: with float16 scales, where code times scale is exact."""
    types = ("float16", "float32") if values.get("symmetric", True) else ("float16",)
    quantizer, x = data.draw(examples(name, values, scale_dtypes=types))
    once = quantizer.quantize(x)
    twice = quantizer.quantize(once.dequantize(torch.float32))
    assert torch.equal(twice.codes, once.codes)
    assert torch.equal(twice.dequantize(), once.dequantize())


@pytest.mark.parametrize("bits", range(2, 9))
@given(data=st.data())
def test_asymmetric_with_float32_scales_keeps_its_codes(bits: int, data: st.DataObject) -> None:
    """The scale may move by one unit in the last place: its product with a code was rounded."""
    values = {"bits": bits, "symmetric": False}
    quantizer, x = data.draw(examples("int", values, scale_dtypes=("float32",), kinds=("normal", "unit", "floor")))
    once = quantizer.quantize(x)
    twice = quantizer.quantize(once.dequantize(torch.float32))
    assert torch.equal(twice.codes, once.codes)
    torch.testing.assert_close(twice.scale, once.scale, rtol=2.0**-23, atol=0)


def test_ternary_absmean_shrinks_when_repeated() -> None:
    quantizer = build("ternary", group_size=256)
    norms = [torch.randn(4096, 256, generator=torch.Generator().manual_seed(0))]
    for _ in range(3):
        norms.append(quantizer.fake_quantize(norms[-1]))
    sizes = [float(value.norm()) for value in norms[1:]]
    assert sizes[1] / sizes[0] == pytest.approx(0.858, abs=0.006)
    assert sizes[2] / sizes[0] == pytest.approx(0.738, abs=0.01)


@absmean
@given(seed=st.integers(0, 2**32 - 1), exponent=st.integers(-12, 8), columns=st.sampled_from([32, 96, 256]))
def test_latents_of_a_packed_ternary_matrix(multiplier: float, seed: int, exponent: int, columns: int) -> None:
    """w0 = q s / (f rho) gives back codes and scales bit for bit where rho < 2 / f."""
    quantizer = build("ternary", scale_multiplier=multiplier, group_size=columns)
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(16, columns, generator=generator) * 2.0**exponent
    weight = weight.where(torch.rand(16, 1, generator=generator) < 0.9, torch.zeros(()))
    packed = quantizer.quantize(weight)
    share = packed.codes.abs().float().mean(dim=-1, keepdim=True)
    has_latent = (share < 2 / multiplier) & (share > 0)
    latent = packed.dequantize() / (multiplier * share.clamp(min=1 / columns))
    again = quantizer.quantize(latent)
    fixed = has_latent.squeeze(-1)
    assert bool(fixed.any())
    assert torch.equal(again.codes[fixed], packed.codes[fixed])
    assert torch.equal(again.scale[fixed], packed.scale[fixed])
    assert torch.equal(again.codes[share.squeeze(-1) == 0], packed.codes[share.squeeze(-1) == 0])


@given(seed=st.integers(0, 2**32 - 1))
def test_float32_scales_of_such_latents_may_move_in_the_last_place(seed: int) -> None:
    quantizer = build("ternary", group_size=64, scale_dtype="float32")
    packed = quantizer.quantize(torch.randn(32, 64, generator=torch.Generator().manual_seed(seed)))
    share = packed.codes.abs().float().mean(dim=-1, keepdim=True)
    again = quantizer.quantize(packed.dequantize() / (2 * share))
    assert torch.equal(again.codes, packed.codes)
    torch.testing.assert_close(again.scale, packed.scale, rtol=2.0**-22, atol=0)
