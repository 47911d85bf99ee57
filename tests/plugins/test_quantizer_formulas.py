"""The formulas of each quantizer, one by one (METHOD 1.3 and 1.4)."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from tests.plugins.quantizer_cases import build


def normal(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 2**32 - 1))
def test_absmean_zeroes_what_is_at_most_the_mean(seed: int) -> None:
    # Halves have exact means, so ties at the mean do occur.
    x = torch.randint(-6, 7, (16, 32), generator=torch.Generator().manual_seed(seed)) / 2
    codes = build("ternary", group_size=32, scale_dtype="float32").quantize(x).codes
    mean = x.abs().double().mean(dim=-1, keepdim=True)
    assert torch.equal(codes == 0, x.abs().double() <= mean)
    assert torch.equal(codes[codes != 0], x.sign().to(torch.int8)[codes != 0])


@pytest.mark.parametrize("columns", [32, 96, 256])
def test_absmean_does_not_depend_on_the_order_of_a_group(columns: int) -> None:
    x = normal(2000, columns)
    order = torch.randperm(columns, generator=torch.Generator().manual_seed(1))
    quantizer = build("ternary", group_size=columns, scale_dtype="float32")
    plain, shuffled = quantizer.quantize(x), quantizer.quantize(x[:, order])
    assert torch.equal(plain.scale, shuffled.scale) and torch.equal(plain.codes[:, order], shuffled.codes)


def test_shares_and_errors_of_normal_weights() -> None:
    x = normal(4096, 256)

    def measured(name: str, **values: object) -> tuple[float, float]:
        quantizer = build(name, group_size=256, **values)
        quantized = quantizer.quantize(x)
        share = float((quantized.codes != 0).float().mean())
        return share, float((quantized.dequantize() - x).norm() / x.norm())

    assert measured("ternary") == pytest.approx((0.426, 0.480), abs=0.002)
    assert measured("ternary", scale="absmax")[0] == pytest.approx(0.135, abs=0.003)
    assert measured("int", bits=4)[1] == pytest.approx(0.126, abs=0.002)
    assert measured("int", bits=4, symmetric=False)[1] == pytest.approx(0.120, abs=0.002)


@given(exponent=st.integers(-40, 40), name=st.sampled_from(["int", "ternary"]))
def test_scales_of_both_half_precisions_are_in_both(exponent: int, name: str) -> None:
    """They lie within half a unit of eight bits of the scale before rounding, where float16 has such numbers."""
    values = {"bits": 4} if name == "int" else {}
    x = normal(16, 64) * 2.0**exponent
    exact = build(name, group_size=32, scale_dtype="float32", **values).quantize(x).scale
    scale = build(name, group_size=32, scale_dtype="float16_bfloat16", **values).quantize(x).scale
    assert scale.dtype == torch.float16 and torch.equal(scale.bfloat16().half(), scale)
    reachable = exact.clamp(2.0**-14, 65280.0)
    assert bool(((scale.float() - reachable).abs() <= reachable * 2.0**-8).all())


@pytest.mark.parametrize("scale_dtype", ["float16", "float16_bfloat16", "float32"])
def test_two_bit_int_is_ternary_absmax(scale_dtype: str) -> None:
    x = normal(64, 128)
    two = build("int", bits=2, group_size=32, scale_dtype=scale_dtype).quantize(x)
    ternary = build("ternary", scale="absmax", group_size=32, scale_dtype=scale_dtype).quantize(x)
    for value, other in zip(vars(two).values(), vars(ternary).values(), strict=True):
        assert value == other if isinstance(value, int) else torch.equal(value, other)


@pytest.mark.parametrize("bits", range(2, 9))
def test_int_scale_is_the_largest_magnitude_over_qmax(bits: int) -> None:
    qmax, x = 2 ** (bits - 1) - 1, normal(64, 128)
    exact = build("int", bits=bits, group_size=None, scale_dtype="float32").quantize(x)
    assert torch.equal(exact.scale, x.abs().amax(dim=-1, keepdim=True) / qmax)
    stored = build("int", bits=bits, group_size=None).quantize(x)
    assert torch.equal(stored.scale, exact.scale.half())
    # Codes come from the stored scale, not from the exact one.
    assert torch.equal(stored.codes, (x / stored.scale.float()).round().clamp(-qmax, qmax).to(torch.int8))
    floored = build("int", bits=bits, group_size=None, scale_dtype="float32").quantize(x * 1e-9)
    assert torch.equal(floored.scale, torch.full((64, 1), 1e-5) / qmax)


@pytest.mark.parametrize("bits", range(2, 9))
@given(seed=st.integers(0, 2**32 - 1), shift=st.floats(-3, 3))
def test_asymmetric_covers_both_sides(bits: int, seed: int, shift: float) -> None:
    qmax, x = 2 ** (bits - 1) - 1, normal(8, 64, seed) + shift
    quantized = build("int", bits=bits, symmetric=False, group_size=64, scale_dtype="float32").quantize(x)
    step = quantized.scale
    assert bool((x <= (qmax + 1e-4) * step).all()) and bool((x >= -(qmax + 1 + 1e-4) * step).all())
    assert bool(((quantized.codes == qmax) | (quantized.codes == -qmax - 1)).any(dim=-1).all())
    assert float(((quantized.dequantize() - x).abs() / step).max()) <= 0.5 + 1e-4


@pytest.mark.parametrize("bits", range(2, 9))
@given(seed=st.integers(0, 2**32 - 1), shift=st.floats(-3, 3))
def test_signed_scales_give_the_largest_magnitude_the_longer_side(bits: int, seed: int, shift: float) -> None:
    x = normal(8, 64, seed) + shift
    signed = {"symmetric": False, "scale": "signed_absmax", "scale_dtype": "float32"}
    found = build("int", bits=bits, group_size=64, **signed).quantize(x)
    place = x.abs().argmax(dim=-1, keepdim=True)
    largest = x.gather(-1, place)
    assert bool((found.codes.gather(-1, place) == -(2 ** (bits - 1))).all())
    assert torch.equal(found.scale, -largest / 2 ** (bits - 1))
    assert torch.equal(build("int", bits=bits, group_size=64, **signed).quantize(-x).codes, found.codes)


def test_signed_scales_round_closer_than_others() -> None:
    x = normal(256, 32)
    errors = [
        float((build("int", bits=4, group_size=32, **values).fake_quantize(x) - x).square().mean())
        for values in ({}, {"symmetric": False}, {"symmetric": False, "scale": "signed_absmax"})
    ]
    assert errors[2] < 0.9 * errors[1] < 0.9 * errors[0]


def test_signed_scales_need_the_longer_side() -> None:
    with pytest.raises(ValidationError, match="scale signed_absmax needs symmetric: false"):
        build("int", bits=4, scale="signed_absmax")


def test_zero_is_a_value_of_the_asymmetric_quantizer() -> None:
    x = normal(8, 64).abs().index_fill(1, torch.tensor([3]), 0.0)
    assert not bool(build("int", bits=4, symmetric=False, group_size=64).quantize(x).codes[:, 3].any())


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("scale_dtype", ["float16", "float32"])
def test_ties_go_to_the_even_code_by_true_division(bits: int, scale_dtype: str) -> None:
    """Halves of any float16 scale are exact in float32; a product with 1 / scale would miss a tie here and there."""
    qmax = 2 ** (bits - 1) - 1
    ties = torch.arange(-qmax, qmax + 0.5, 0.5)
    scale = torch.rand(500, 1, generator=torch.Generator().manual_seed(0)).clamp(min=1e-3).half().float()
    quantized = build("int", bits=bits, group_size=None, scale_dtype=scale_dtype).quantize(ties * scale)
    assert torch.equal(quantized.scale.float(), scale)
    even = torch.tensor([round(value) for value in ties.tolist()], dtype=torch.int8)
    assert torch.equal(quantized.codes, even.expand(500, -1))
    assert bool(((ties * scale) * (1 / scale)).round().ne(even).any())


@pytest.mark.parametrize("values", [{"bits": 4}, {"bits": 8}], ids=str)
def test_symmetric_quantizers_are_odd(values: dict[str, int]) -> None:
    quantizer, x = build("int", **values, group_size=32), normal(16, 64)
    assert torch.equal(quantizer.quantize(-x).codes, -quantizer.quantize(x).codes)


def test_a_constant_group_is_exact_with_absmax_and_off_by_itself_with_absmean() -> None:
    x = torch.full((4, 32), 0.75) * torch.tensor([1.0, -1.0]).repeat(16)
    assert torch.equal(build("ternary", scale="absmax", group_size=32).fake_quantize(x), x)
    assert torch.equal((build("ternary", group_size=32).fake_quantize(x) - x).abs(), x.abs())
