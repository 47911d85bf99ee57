"""Laws of every registered quantizer (METHOD 1): one definition, straight-through gradients, bounded errors."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgerazor.core.tensor import mean_bits
from edgerazor.errors import PlanError
from tests.plugins.quantizer_cases import DTYPES, MILD, build, cases, examples, groups_of, qmax_of_groups

every_quantizer = pytest.mark.parametrize(("name", "values"), cases())
SCALE_TYPES = {"float16": torch.float16, "float16_bfloat16": torch.float16, "float32": torch.float32}


@every_quantizer
@given(data=st.data())
def test_fake_quantize_is_what_quantize_stores(name: str, values: dict[str, Any], data: st.DataObject) -> None:
    quantizer, x = data.draw(examples(name, values))
    quantized = quantizer.quantize(x)
    assert torch.equal(quantizer.fake_quantize(x), quantized.dequantize(x.dtype))
    if hasattr(quantizer, "quantize_dequantize"):
        both, value = quantizer.quantize_dequantize(x)
        assert torch.equal(value, quantized.dequantize(x.dtype)) and torch.equal(both.codes, quantized.codes)


@every_quantizer
@given(data=st.data())
def test_the_gradient_is_the_identity(name: str, values: dict[str, Any], data: st.DataObject) -> None:
    quantizer, x = data.draw(examples(name, values))
    x.requires_grad_(True)
    value = quantizer.fake_quantize(x)
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(x.dtype)
    value.backward(upstream)
    assert value.shape == x.shape and value.dtype == x.dtype
    assert x.grad is not None and torch.equal(x.grad, upstream)


@every_quantizer
@given(data=st.data())
def test_parts_have_their_shapes_types_and_ranges(name: str, values: dict[str, Any], data: st.DataObject) -> None:
    quantizer, x = data.draw(examples(name, values))
    quantized = quantizer.quantize(x)
    size, rows = quantized.group_size, x.shape[:-1].numel()
    assert size == (quantizer.params.group_size or x.shape[-1])
    assert quantized.codes.dtype == quantized.qmax.dtype == torch.int8 and quantized.codes.shape == x.shape
    assert quantized.scale.dtype == SCALE_TYPES[quantizer.params.scale_dtype]
    assert quantized.scale.shape == (*x.shape[:-1], x.shape[-1] // size)
    assert quantized.qmax.shape in {(rows,), (rows, x.shape[-1] // size)}
    assert bool((quantized.scale != 0).all()) and bool(torch.isfinite(quantized.scale).all())
    assert quantizer.signed_scale or bool((quantized.scale > 0).all())
    if quantizer.params.scale_dtype != "float32":
        assert float(quantized.scale.abs().min()) >= 2.0**-14
    codes, qmax = groups_of(quantized.codes, size), qmax_of_groups(quantized)
    lowest = -qmax if getattr(quantizer, "symmetric", True) else -qmax - 1
    assert bool((codes <= qmax).all()) and bool((codes >= lowest).all())


@every_quantizer
@given(data=st.data())
def test_the_error_is_half_a_step_inside_the_range(name: str, values: dict[str, Any], data: st.DataObject) -> None:
    quantizer, x = data.draw(examples(name, values, dtypes=(torch.float32,)))
    quantized = quantizer.quantize(x)
    size, qmax = quantized.group_size, qmax_of_groups(quantized)
    scale = quantized.scale.float().reshape(-1, x.shape[-1] // size, 1)
    lowest = -qmax if getattr(quantizer, "symmetric", True) else -qmax - 1
    groups, value = (groups_of(values, size) * scale.sign() for values in (x, quantized.dequantize()))
    scale = scale.abs()
    inside = (groups <= qmax * scale) & (groups >= lowest * scale)
    error = ((groups - value).abs() / scale)[inside]
    assert error.numel() == 0 or float(error.max()) <= 0.5 + 1e-5
    beyond = ((groups > qmax * scale) & (value != qmax * scale)) | (
        (groups < lowest * scale) & (value != lowest * scale)
    )
    assert not bool(beyond.any())


@every_quantizer
@given(data=st.data(), power=st.integers(-3, 6))
def test_powers_of_two_pass_through(name: str, values: dict[str, Any], data: st.DataObject, power: int) -> None:
    quantizer, x = data.draw(examples(name, values, kinds=("ties", "unit"), dtypes=(torch.float32,)))
    scaled = quantizer.quantize(x * 2.0**power)
    plain = quantizer.quantize(x)
    assert torch.equal(scaled.codes, plain.codes) and torch.equal(scaled.qmax, plain.qmax)
    assert torch.equal(scaled.dequantize(), plain.dequantize() * 2.0**power)


@every_quantizer
@given(data=st.data())
def test_widths_are_known_from_the_shape(name: str, values: dict[str, Any], data: st.DataObject) -> None:
    quantizer, x = data.draw(examples(name, values, kinds=MILD))
    quantized = quantizer.quantize(x)
    each = x.numel() // quantized.qmax.numel()
    found = {
        int(qmax): int(count) * each for qmax, count in zip(*quantized.qmax.unique(return_counts=True), strict=True)
    }
    assert dict(quantizer.widths(tuple(x.shape))) == found


@every_quantizer
@given(data=st.data())
def test_bits_per_weight_are_the_widths_and_the_scales(name: str, values: dict[str, Any], data: st.DataObject) -> None:
    quantizer, x = data.draw(examples(name, values, kinds=("normal",)))
    quantized = quantizer.quantize(x)
    nominal = mean_bits(quantizer.widths(tuple(x.shape)), quantized.symmetric)
    assert quantized.bits_per_weight() == pytest.approx(nominal + 16 / quantized.group_size, rel=1e-12)
    assert sum(quantized.rows_by_bits().values()) == x.shape[:-1].numel()


@every_quantizer
@given(data=st.data())
def test_rows_that_are_independent_do_not_see_each_other(
    name: str, values: dict[str, Any], data: st.DataObject
) -> None:
    quantizer, x = data.draw(examples(name, values))
    if quantizer.rows_independent:
        rows = x.reshape(-1, x.shape[-1])
        alone = torch.cat([quantizer.fake_quantize(row.unsqueeze(0)) for row in rows])
        assert torch.equal(alone.reshape(x.shape), quantizer.fake_quantize(x))
        assert quantizer.fake_quantize(x.new_empty(0, x.shape[-1])).shape == (0, x.shape[-1])


@every_quantizer
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_zero_group_stays_zero(name: str, values: dict[str, Any], dtype: torch.dtype) -> None:
    x = torch.zeros(8, 128, dtype=dtype)
    x[3:5, :32] = 1.5
    quantized = build(name, **values, group_size=32).quantize(x)
    assert bool((quantized.codes.reshape(8, 4, 32)[:, 1:] == 0).all())
    assert bool((quantized.codes[:3] == 0).all()) and bool(torch.isfinite(quantized.scale).all())


@every_quantizer
def test_groups_below_half_the_smallest_scale_become_zero(name: str, values: dict[str, Any]) -> None:
    quantizer = build(name, **values, group_size=32, scale_dtype="float16")
    x = torch.linspace(-(2.0**-15), 2.0**-15, 8 * 64).reshape(8, 64)
    assert not bool(quantizer.quantize(x).codes.any())


@every_quantizer
def test_enormous_values_saturate(name: str, values: dict[str, Any]) -> None:
    quantizer = build(name, **values, group_size=32, scale_dtype="float16")
    x = torch.tensor([1e30, -1e30]).repeat(8, 64)
    quantized = quantizer.quantize(x)
    codes, qmax = groups_of(quantized.codes, 32), qmax_of_groups(quantized).expand(-1, 4, 32)
    assert bool((quantized.scale == 65504).all()) and bool(torch.isfinite(quantized.dequantize()).all())
    assert torch.equal(codes[..., ::2], qmax[..., ::2].float())
    lowest = -qmax if getattr(quantizer, "symmetric", True) else -qmax - 1
    assert torch.equal(codes[..., 1::2], lowest[..., 1::2].float())


@every_quantizer
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_not_a_number_stays_in_its_group_and_is_never_a_code(
    name: str, values: dict[str, Any], dtype: torch.dtype
) -> None:
    x = torch.randn(8, 128, generator=torch.Generator().manual_seed(0)).to(dtype)
    x[2, 40] = torch.nan
    quantizer = build(name, **values, group_size=32)
    value, quantized = quantizer.fake_quantize(x), quantizer.quantize(x)
    expected = torch.zeros(8, 128, dtype=torch.bool)
    expected[2, 32:64] = True
    assert torch.equal(value.isnan(), expected)
    assert torch.equal(value.nan_to_num(0.0), quantized.dequantize(dtype).nan_to_num(0.0))
    assert torch.equal(quantized.dequantize().isnan(), expected) and not bool(quantized.codes[2, 32:64].any())


@every_quantizer
def test_one_huge_element_silences_its_group_alone(name: str, values: dict[str, Any]) -> None:
    x = torch.randn(8, 128, generator=torch.Generator().manual_seed(0))
    x[1, 70] = 6e4
    quantizer = build(name, **values, group_size=32)
    quantized = quantizer.quantize(x)
    group = quantized.codes.reshape(8, 4, 32)[1, 2]
    qmax = int(qmax_of_groups(quantized).expand(8, 4, 1)[1, 2, 0])
    assert int(group[6]) == (-qmax - 1 if quantizer.signed_scale else qmax)
    assert int((group != 0).sum()) == 1 and bool(quantized.codes.reshape(8, 4, 32)[1, 1].any())


@every_quantizer
def test_autocast_does_not_change_a_bit(name: str, values: dict[str, Any]) -> None:
    x = torch.randn(8, 64, generator=torch.Generator().manual_seed(3))
    quantizer = build(name, **values, group_size=32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = quantizer.fake_quantize(x)
    assert torch.equal(inside, quantizer.fake_quantize(x))


@every_quantizer
def test_a_shape_that_does_not_divide_is_refused_with_the_cure(name: str, values: dict[str, Any]) -> None:
    quantizer = build(name, **values, group_size=256)
    with pytest.raises(PlanError, match=r"960 columns.*group_size 256.*960, 480, 320, 192, 160, 96, 64, 32 would fit"):
        quantizer.check_shape((8, 960))
    with pytest.raises(PlanError, match=r"150 columns.*150, 75, 50, 30, 25, 15, 10, 6 would fit"):
        quantizer.quantize(torch.ones(8, 150))
    with pytest.raises(PlanError, match="960 columns"):
        quantizer.fake_quantize(torch.ones(8, 960))
