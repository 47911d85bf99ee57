"""Codes chosen once more: the error falls with every step, and ends where no single code can lower it."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgerazor.calibrate import gptq
from edgerazor.calibrate.descent import descended
from edgerazor.calibrate.gptq import calibrated_codes
from edgerazor.core.latent_weights import limits
from edgerazor.core.tensor import QuantizedTensor
from tests.calibrate.test_gptq import QUANTIZERS, draw
from tests.plugins.quantizer_cases import build

CASES = st.sampled_from(QUANTIZERS)


def error(codes: QuantizedTensor, weight: Tensor, moments: Tensor) -> float:
    missing = (codes.dequantize() - weight).double()
    return float(((missing @ moments.double()) * missing).sum())


def free_of(found: QuantizedTensor, kept: Tensor) -> Tensor:
    """bool `[R, C]`: codes that may change."""
    places = torch.arange(found.codes.shape[1]) % found.group_size
    wide = kept.repeat_interleave(found.group_size, dim=1)
    return (wide >= 0) & (wide != places)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    case=CASES,
    group_size=st.sampled_from([16, 32, None]),
    passes=st.integers(1, 3),
)
def test_the_error_falls_and_what_is_kept_stays(seed: int, case: Any, group_size: Any, passes: int) -> None:
    weight, inputs = draw(seed)
    moments = inputs.T @ inputs
    quantizer = build(case[0], **case[1], group_size=group_size)
    plain = quantizer.quantize(weight)
    kept = torch.randint(-1, plain.group_size, plain.scale.shape, generator=torch.Generator().manual_seed(seed))
    found = descended(weight, moments, plain, quantizer, kept, passes)
    assert error(found, weight, moments) <= error(plain, weight, moments) * (1 + 1e-5)
    stays = ~free_of(plain, kept)
    assert torch.equal(found.codes[stays], plain.codes[stays])
    assert torch.equal(found.scale[kept < 0], plain.scale[kept < 0])
    assert found.scale.dtype == plain.scale.dtype and torch.equal(found.qmax, plain.qmax)
    lowest, highest = (
        bound.repeat_interleave(found.group_size, dim=1) for bound in limits(found.qmax, kept.shape[1], quantizer)
    )
    assert bool(((found.codes >= lowest) & (found.codes <= highest)).all())


@pytest.mark.parametrize("case", QUANTIZERS, ids=lambda case: case[0])
def test_no_other_code_is_better_at_the_end(case: Any) -> None:
    weight, inputs = draw(11, rows=2, columns=32)
    moments = inputs.T @ inputs
    quantizer = build(case[0], **case[1], group_size=16)
    plain = quantizer.quantize(weight)
    kept = plain.codes.unflatten(-1, (-1, 16)).float().abs().argmax(dim=-1)
    found = descended(weight, moments, plain, quantizer, kept, passes=50)
    least = error(found, weight, moments)
    lowest, highest = limits(found.qmax, found.scale.shape[-1], quantizer)
    for row, column in free_of(plain, kept).nonzero().tolist():
        bounds = int(lowest[row, column // 16]), int(highest[row, column // 16])
        for code in range(bounds[0], bounds[1] + 1):
            codes = found.codes.clone()
            codes[row, column] = code
            other = QuantizedTensor(codes, found.scale, found.qmax, found.group_size)
            assert error(other, weight, moments) >= least * (1 - 1e-4)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), case=CASES)
def test_calibrated_codes_are_closer_for_it(seed: int, case: Any) -> None:
    weight, inputs = draw(seed)
    moments = inputs.T @ inputs
    quantizer = build(case[0], **case[1], group_size=16)
    without, found = (calibrated_codes(weight, moments, quantizer, passes=passes) for passes in (0, 3))
    assert error(found, weight, moments) < error(without, weight, moments)


def test_rows_in_parts_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, inputs = draw(5)
    quantizer = build("int", bits=4, group_size=16)
    whole = calibrated_codes(weight, inputs.T @ inputs, quantizer)
    monkeypatch.setattr(gptq, "_ROWS_AT_ONCE", 3)
    parts = calibrated_codes(weight, inputs.T @ inputs, quantizer)
    # Products of fewer rows may be summed in another order, and a value between two codes go the other way.
    assert (parts.codes == whole.codes).float().mean() > 0.98
    assert parts.scale.shape == whole.scale.shape and torch.equal(parts.qmax, whole.qmax)


def test_a_ternary_group_that_stays_has_as_many_codes_as_it_had() -> None:
    weight, inputs = draw(5)
    quantizer = build("ternary", scale="absmean", scale_multiplier=40.0, group_size=16)
    codes = torch.ones_like(weight, dtype=torch.int8)
    scale = torch.ones(weight.shape[0], weight.shape[1] // 16, dtype=torch.float16)
    plain = QuantizedTensor(codes, scale, torch.ones(len(weight), dtype=torch.int8), 16)
    kept = torch.zeros(scale.shape, dtype=torch.int64)
    kept[::2] = -1
    found = descended(weight, inputs.T @ inputs, plain, quantizer, kept)
    assert torch.equal(found.codes[::2], codes[::2])
    assert bool((found.codes[1::2].unflatten(-1, (-1, 16)) != 0).sum(dim=-1).eq(1).all())
