"""Few numbers are quantized in few calls, to the bits of the reference."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from edgerazor.kernels import dispatch, reference
from edgerazor.kernels.few_rows import MOST_ELEMENTS, FewRows
from edgerazor.kernels.reference import GroupRule
from edgerazor.plugins.quantizers.integer import IntQuantizer
from edgerazor.plugins.quantizers.params import IntParams


def rule(bits: int, scale_dtype: str) -> GroupRule:
    return GroupRule("absmax", 2 ** (bits - 1) - 1, scale_dtype=scale_dtype)  # type: ignore[arg-type]


KINDS = st.tuples(st.integers(2, 8), st.sampled_from(["float16", "float16_bfloat16", "float32"])).map(
    lambda kind: rule(*kind)
)
SPECIAL = st.sampled_from([0.0, 1e-7, 1.0, 65504.0, float("inf"), float("nan")])


@given(
    rule=KINDS,
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    exponent=st.integers(-40, 40),
    group_size=st.sampled_from([None, 1, 16, 48]),
    special=SPECIAL,
)
def test_the_bits_are_those_of_the_reference(
    rule: GroupRule, dtype: torch.dtype, exponent: int, group_size: int | None, special: float
) -> None:
    generator = torch.Generator().manual_seed(exponent + 100)
    x = (torch.randn(2, 3, 48, generator=generator) * 2.0**exponent).to(dtype)
    x[0, 1], x[1, 2, 5] = 0, special
    few = FewRows(rule, group_size)
    for given_x in (x, x.transpose(0, 1)):
        found, before = few(given_x), given_x.clone()
        expected = reference.fake_quantize(given_x, rule, group_size)
        assert found.dtype == dtype and torch.equal(found.nan_to_num(7), expected.nan_to_num(7))
        assert torch.equal(found.isnan(), expected.isnan()) and torch.equal(given_x.nan_to_num(), before.nan_to_num())


@pytest.mark.parametrize("scale_dtype", ["float16", "float16_bfloat16", "float32"])
def test_no_code_leaves_its_width(scale_dtype: str) -> None:
    """Every float16 magnitude as the largest of its group: the division rounds up to qmax at most."""
    largest = torch.arange(31744, dtype=torch.int16).view(torch.float16).float().reshape(-1, 1)
    for bits in (2, 4, 8):
        x = largest * torch.tensor([1.0, -1.0, 0.5])
        for some in x.split(MOST_ELEMENTS // 3):
            few = FewRows(rule(bits, scale_dtype), None)
            assert torch.equal(few(some), reference.fake_quantize(some, rule(bits, scale_dtype), None))


def test_it_takes_what_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(dispatch.SETTING, raising=False)
    few = dispatch.few_rows(rule(8, "float32"), 32)
    assert few is not None and few.takes(torch.zeros(2, 32))
    assert not few.takes(torch.zeros(2, 48)) and not few.takes(torch.zeros(MOST_ELEMENTS + 1, 32))
    assert not few.takes(torch.zeros(2, 32, device="meta"))
    assert dispatch.few_rows(GroupRule("absmean", 1), 32) is None
    monkeypatch.setenv(dispatch.SETTING, "reference")
    assert dispatch.few_rows(rule(8, "float32"), 32) is None


class Doubling(IntQuantizer):
    def fake_quantize(self, x: Tensor) -> Tensor:
        return 2 * super().fake_quantize(x)


def test_a_quantizer_built_on_another_keeps_its_own_rounding() -> None:
    quantizer, x = Doubling(IntParams(bits=8, group_size=16)), torch.randn(2, 32)
    assert torch.equal(quantizer.fake_quantize_only(x), quantizer.fake_quantize(x))
    latent = torch.randn(2, 32, requires_grad=True)
    assert not IntQuantizer(IntParams(bits=8, group_size=16)).fake_quantize_only(latent).requires_grad
