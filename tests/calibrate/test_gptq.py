"""Codes column by column: the published formula, our quantizers' groups and widths."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgerazor.calibrate.gptq import DAMPING, calibrated_codes
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import PlanError
from tests.plugins.quantizer_cases import build

QUANTIZERS: list[tuple[str, dict[str, Any]]] = [
    ("int", {"bits": 4}),
    ("int", {"bits": 3, "symmetric": False}),
    ("ternary", {}),
    ("sqmp", {"high_ratio": 0.25}),
]


def draw(seed: int, rows: int = 8, columns: int = 64, tokens: int = 200) -> tuple[Tensor, Tensor]:
    """A weight, and inputs whose columns go together."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator) / 4 + torch.eye(columns)
    return torch.randn(rows, columns, generator=generator), torch.randn(tokens, columns, generator=generator) @ mixing


def slowly(weight: Tensor, inputs: Tensor, quantizer: Any) -> Tensor:
    """Codes by the inverse of the Hessian of the columns that are left, which is found anew for each column."""
    work, size = weight.double().clone(), quantizer.params.group_size
    hessian = (inputs.T @ inputs).double()
    hessian += DAMPING * hessian.diagonal().mean() * torch.eye(len(hessian))
    codes = torch.zeros_like(weight)
    for column in range(weight.shape[1]):
        if column % size == 0:
            found = quantizer.quantize(work[:, column : column + size].float())
        scale, qmax = found.scale[:, 0].double(), found.qmax.double()
        codes[:, column] = torch.round(work[:, column] / scale).clamp(-qmax - int(not quantizer.symmetric), qmax)
        inverse = torch.linalg.inv(hessian[column:, column:])
        error = (work[:, column] - codes[:, column] * scale) / inverse[0, 0]
        work[:, column:] -= error.unsqueeze(1) * inverse[0]
    return codes


@pytest.mark.parametrize(("name", "values"), QUANTIZERS)
def test_codes_are_those_of_the_formula(name: str, values: dict[str, Any]) -> None:
    weight, inputs = draw(1)
    quantizer = build(name, **values, group_size=32)
    found = calibrated_codes(weight, inputs.T @ inputs, quantizer)
    expected = slowly(weight, inputs, quantizer)
    # A value in the middle between two codes may go either way, and what follows with it.
    assert (found.codes == expected).float().mean() > 0.98


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), case=st.sampled_from(QUANTIZERS), group_size=st.sampled_from([16, 32, 64, None]))
def test_outputs_come_closer_and_widths_stay(seed: int, case: tuple[str, dict[str, Any]], group_size: Any) -> None:
    weight, inputs = draw(seed)
    quantizer = build(case[0], **case[1], group_size=group_size)
    found, plain = calibrated_codes(weight, inputs.T @ inputs, quantizer), quantizer.quantize(weight)

    def error(codes: QuantizedTensor) -> float:
        return float(((codes.dequantize() - weight) @ inputs.T).norm())

    assert error(found) < error(plain)
    assert torch.equal(found.qmax, plain.qmax) and found.group_size == plain.group_size
    assert found.scale.dtype == plain.scale.dtype and found.scale.shape == plain.scale.shape
    highest = found.qmax.unsqueeze(1)
    assert bool((found.codes <= highest).all()) and bool((found.codes >= -highest - int(not quantizer.symmetric)).all())


@pytest.mark.parametrize(("name", "values"), QUANTIZERS)
def test_inputs_that_know_nothing_of_each_other_change_nothing(name: str, values: dict[str, Any]) -> None:
    weight, _ = draw(3, columns=160)
    quantizer = build(name, **values, group_size=32)
    found, plain = calibrated_codes(weight, 7 * torch.eye(160), quantizer), quantizer.quantize(weight)
    assert torch.equal(found.codes, plain.codes) and torch.equal(found.scale, plain.scale)


def test_columns_without_input_are_rounded_as_they_are() -> None:
    weight, inputs = draw(4)
    inputs[:, :32] = 0
    quantizer = build("int", bits=4, group_size=32)
    found, plain = calibrated_codes(weight, inputs.T @ inputs, quantizer), quantizer.quantize(weight)
    assert torch.equal(found.codes[:, :32], plain.codes[:, :32])
    assert not torch.equal(found.codes[:, 32:], plain.codes[:, 32:])


def test_rows_that_depend_on_the_weights_are_refused() -> None:
    weight, inputs = draw(5, rows=64)
    quantizer = build("sqmp", high_ratio=0.25, placement="variance_rows", group_size=32)
    with pytest.raises(PlanError, match="depends on the weights themselves"):
        calibrated_codes(weight, 100 * inputs.T @ inputs, quantizer)
