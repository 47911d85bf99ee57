"""The Triton quantizer and the reference give the same codes, scales and values, bit for bit (KERNELS 1.6)."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgerazor.kernels import reference
from edgerazor.kernels.reference import GroupRule

pytest.importorskip("triton")
from edgerazor.kernels.triton import quantize as kernels
from edgerazor.kernels.triton.dequantize import dequantize

MakeRule = Callable[[int, int], GroupRule]
pytestmark = [
    pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered:RuntimeWarning"),
    pytest.mark.slow,
]


def mixed_rows(rows: int, _: int) -> GroupRule:
    qmax = torch.ones(rows, dtype=torch.int8)
    qmax[::3] = 7
    return GroupRule("mixed", qmax)


def mixed_groups(rows: int, groups: int) -> GroupRule:
    qmax = torch.tensor([1, 127, 3], dtype=torch.int8).repeat(rows * groups)[: rows * groups]
    return GroupRule("mixed", qmax.reshape(rows, groups), multiplier=1.7, scale_dtype="float32")


def with_scales(rows: int, groups: int, kind: Any = "given", qmax: Any = 1, scale_dtype: Any = "float16") -> GroupRule:
    """Scales of their own: powers of two, which ties meet, and others."""
    raw = 2.0 ** torch.randint(-14, 4, (rows, groups), generator=torch.Generator().manual_seed(rows))
    raw[1::2] *= 1.37
    scale = reference.round_scale(raw, scale_dtype).to(reference.stored_dtype(scale_dtype))
    return GroupRule(kind, qmax, scale_dtype=scale_dtype, given=scale)


# Each gives the rule for a number of rows and of groups per row.
RULES: dict[str, MakeRule] = {
    "absmean": lambda *_: GroupRule("absmean", 1),
    "absmean times 1.3, float32": lambda *_: GroupRule("absmean", 1, multiplier=1.3, scale_dtype="float32"),
    "ternary absmax": lambda *_: GroupRule("absmax", 1),
    "int4": lambda *_: GroupRule("absmax", 7),
    "int6": lambda *_: GroupRule("absmax", 31),
    "int4, scales of bfloat16": lambda *_: GroupRule("absmax", 7, scale_dtype="float16_bfloat16"),
    "int8 activations": lambda *_: GroupRule("absmax", 127, scale_dtype="float32"),
    "asymmetric int2": lambda *_: GroupRule("asymmetric", 1),
    "signed int4": lambda *_: GroupRule("signed_asymmetric", 7),
    "signed int4, scales of bfloat16": lambda *_: GroupRule("signed_asymmetric", 7, scale_dtype="float16_bfloat16"),
    "signed int2": lambda *_: GroupRule("signed_asymmetric", 1, scale_dtype="float32"),
    "asymmetric int4": lambda *_: GroupRule("asymmetric", 7, scale_dtype="float32"),
    "mixed rows": mixed_rows,
    "mixed groups": mixed_groups,
    "given": with_scales,
    "given, asymmetric": lambda *shape: with_scales(*shape, "given_asymmetric", 7, "float16_bfloat16"),
    "given, mixed rows": lambda *shape: with_scales(*shape, "given", mixed_rows(*shape).qmax),
    "given, mixed groups": lambda *shape: with_scales(*shape, "given_asymmetric", mixed_groups(*shape).qmax, "float32"),
}
every_rule = pytest.mark.parametrize("make", RULES.values(), ids=RULES)


def on(device: str, rule: GroupRule) -> GroupRule:
    tensors: dict[str, Any] = {name: part for name, part in rule._asdict().items() if isinstance(part, Tensor)}
    return rule._replace(**{name: part.to(device) for name, part in tensors.items()})


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normal values whose magnitude goes from 2^-16 to 2^3 by row, and a row of zeros."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator)
    rows = x.view(-1, shape[-1])
    rows *= 2.0 ** torch.randint(-16, 4, (len(rows), 1), generator=generator)
    rows[len(rows) // 2] = 0
    return x.to(dtype)


def assert_same_bits(x: Tensor, rule: GroupRule, group_size: int | None, device: str, dtype: torch.dtype) -> None:
    expected = reference.quantize_dequantize(x, rule, group_size, dtype=dtype)
    found = kernels.quantize_dequantize(x.to(device), on(device, rule), group_size, dtype=dtype)
    for tensor, other in zip(found, expected, strict=True):
        torch.testing.assert_close(tensor.cpu(), other, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("shape", "group_size"), [((3, 5, 96), 32), ((4, 480), 480), ((513, 256), 256), ((1, 1), 1)])
def test_dequantization_is_the_reference(shape: tuple[int, ...], group_size: int, device: str) -> None:
    codes, scale = reference.quantize(drawn(*shape), GroupRule("absmax", 127, scale_dtype="float32"), group_size)
    # The interpreter truncates where a GPU rounds to bfloat16.
    for dtype in (torch.float32, torch.float16, *([torch.bfloat16] if device == "cuda" else [])):
        found = dequantize(codes.to(device), scale.to(device), dtype)
        assert found.dtype == dtype and torch.equal(found.cpu(), reference.dequantize(codes, scale, dtype))
        assert dequantize(codes[:0].to(device), scale[:0].to(device), dtype).shape == codes[:0].shape


@every_rule
@pytest.mark.parametrize(("rows", "columns", "group_size"), [(5, 64, 32), (37, 192, 96), (3, 480, None), (1, 7, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_codes_scales_and_values_are_the_reference(
    make: MakeRule, rows: int, columns: int, group_size: int | None, dtype: torch.dtype, device: str
) -> None:
    rule = make(rows, columns // (group_size or columns))
    assert_same_bits(drawn(rows, columns, dtype=dtype), rule, group_size, device, torch.float32)


@every_rule
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_values_are_rounded_once(make: MakeRule, dtype: torch.dtype, device: str) -> None:
    if device == "cpu" and dtype == torch.bfloat16:
        pytest.skip("triton's interpreter truncates what it stores as bfloat16")
    for latent in (torch.float32, dtype):
        assert_same_bits(drawn(9, 256, dtype=latent), make(9, 2), 128, device, dtype)


@every_rule
@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_special_values_are_the_reference(make: MakeRule, data: st.DataObject, device: str) -> None:
    """Ties at half a step, zeros of both signs, subnormals, one huge element, infinities and NaN."""
    rows, per_row, size = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 3), st.sampled_from([8, 33])))
    x = drawn(rows, per_row * size, seed=data.draw(st.integers(0, 2**32 - 1)))
    step = 2.0 ** data.draw(st.integers(-15, 10))
    special = [0.0, -0.0, 1e-40, -1e-45, 3e38, float("inf"), -float("inf"), float("nan")]
    special += [sign * (half + 0.5) * step for half in (0, 1, 2, 5, 6, 126) for sign in (-1, 1)]
    flat = x.view(-1)
    for place in data.draw(st.lists(st.integers(0, flat.numel() - 1), max_size=12)):
        flat[place] = data.draw(st.sampled_from(special))
    x[:, 0] = data.draw(st.sampled_from([1, 3, 7, 127])) * step
    assert_same_bits(x, make(rows, per_row), size, device, torch.float32)


@every_rule
def test_every_tie_goes_to_even(make: MakeRule, device: str) -> None:
    """Groups whose scale is a power of two, full of values half way between two codes."""
    halves = torch.arange(-127, 128) / 2
    x = torch.stack([torch.cat([halves, torch.tensor([float(q)])]) for q in (1, 3, 7, 31, 127)])
    assert_same_bits(x.clamp(-127, 127) * 2.0**-4, make(5, 1), None, device, torch.float32)


@every_rule
def test_a_value_half_way_in_a_ternary_group_is_zero(make: MakeRule, device: str) -> None:
    """One unit in the last place around half of the scale decides, as in the reference."""
    half = torch.tensor(0.75)
    around = torch.stack([half, half.nextafter(half + 1), half.nextafter(half - 1), half, half, half, half, half])
    assert_same_bits(torch.stack([around, -around, around, around]), make(4, 1), None, device, torch.float32)


@pytest.mark.parametrize("name", ["int8 activations", "asymmetric int4", "mixed groups"])
def test_keys_and_values_are_read_where_they_lie(name: str, device: str) -> None:
    """`[batch, heads, seq, head_dim]` as attention sees it, a slice of columns, and more axes than the kernel knows."""
    values = drawn(2, 5, 3, 64).transpose(1, 2)
    for x in (values, drawn(9, 96)[:, 32:], drawn(9, 96)[::2], drawn(2, 2, 2, 3, 64).transpose(1, 3), values.mT):
        size = x.shape[-1] // (1 if x.shape[-1] == 5 else 2)
        rule = RULES[name](x.shape[:-1].numel(), x.shape[-1] // size)
        assert_same_bits(x, rule, size, device, torch.float32)


@pytest.mark.parametrize("name", ["absmean", "int4", "mixed rows"])
def test_one_group_may_be_a_long_row(name: str, device: str) -> None:
    assert_same_bits(drawn(3, 9000), RULES[name](3, 1), None, device, torch.float32)


@every_rule
def test_each_output_alone_is_the_same(make: MakeRule, device: str) -> None:
    x, rule = drawn(6, 96).to(device), on(device, make(6, 3))
    codes, scale, value = kernels.quantize_dequantize(x, rule, 32)
    assert torch.equal(kernels.fake_quantize(x, rule, 32), value)
    for tensor, other in zip(kernels.quantize(x, rule, 32), (codes, scale), strict=True):
        assert torch.equal(tensor, other) and tensor.dtype == other.dtype
    assert torch.equal(reference.dequantize(codes, scale, x.dtype), value)


@every_rule
def test_a_nan_fills_its_own_group_unless_the_scale_is_given(make: MakeRule, device: str) -> None:
    x, rule = drawn(4, 96), make(4, 3)
    x[2, 40] = float("nan")
    value = kernels.fake_quantize(x.to(device), on(device, rule), 32).cpu()
    lost = torch.zeros(4, 96, dtype=torch.bool)
    lost[2, 32:64] = rule.given is None
    assert torch.equal(value.isnan(), lost) and (rule.given is None or value[2, 40] == 0)


def test_no_rows_give_nothing(device: str) -> None:
    x, rule = torch.empty(0, 64, device=device), GroupRule("absmean", 1)
    codes, scale, value = kernels.quantize_dequantize(x, rule, 32)
    assert codes.shape == value.shape == (0, 64) and scale.shape == (0, 2)
    assert kernels.fake_quantize(x, rule, None).shape == (0, 64)
