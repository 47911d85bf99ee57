"""Codes column by column: the published formula, our quantizers' groups and widths."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgerazor.calibrate.gptq import calibrated_codes
from edgerazor.calibrate.inputs import DAMPING
from edgerazor.calibrate.scales import FACTORS, best_scale
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import PlanError
from edgerazor.kernels.reference import round_scale
from tests.plugins.quantizer_cases import build

QUANTIZERS: list[tuple[str, dict[str, Any]]] = [
    ("int", {"bits": 4}),
    ("int", {"bits": 3, "symmetric": False}),
    ("int", {"bits": 4, "symmetric": False, "scale": "signed_absmax"}),
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
            group = work[:, column : column + size].float()
            found = quantizer.quantize(group)
            qmax = found.qmax.float()
            qmin = -qmax - int(not quantizer.symmetric)
            rests = [torch.linalg.inv(hessian[place:, place:])[0, 0] for place in range(column, column + size)]
            scale = best_scale(group, found.scale[:, 0], qmin, qmax, 1 / torch.stack(rests).float(), quantizer).double()
            steps = group / scale.unsqueeze(1)
            down, up = steps / qmin.unsqueeze(1), steps / qmax.unsqueeze(1)
            largest = (down if quantizer.signed_scale else torch.maximum(down, up)).argmax(dim=1)
            outermost = torch.round(steps[torch.arange(len(group)), largest]).clamp(qmin, qmax)
        codes[:, column] = torch.round(work[:, column] / scale).clamp(qmin, qmax)
        kept = (largest == column % size) & ((outermost == qmin) | (outermost == qmax))
        codes[:, column] = torch.where(kept, outermost.float(), codes[:, column])
        inverse = torch.linalg.inv(hessian[column:, column:])
        error = (work[:, column] - codes[:, column] * scale) / inverse[0, 0]
        work[:, column:] -= error.unsqueeze(1) * inverse[0]
    return codes


@pytest.mark.parametrize(("name", "values"), QUANTIZERS)
def test_codes_are_those_of_the_formula(name: str, values: dict[str, Any]) -> None:
    weight, inputs = draw(1)
    quantizer = build(name, **values, group_size=32)
    found = calibrated_codes(weight, inputs.T @ inputs, quantizer, passes=0)
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
def test_inputs_that_know_nothing_of_each_other_change_only_scales(name: str, values: dict[str, Any]) -> None:
    weight, _ = draw(3, columns=160)
    quantizer = build(name, **values, group_size=32)
    found, plain = calibrated_codes(weight, 7 * torch.eye(160), quantizer, passes=10), quantizer.quantize(weight)
    distances = [(codes.dequantize() - weight).unflatten(-1, (-1, 32)).norm(dim=-1) for codes in (found, plain)]
    assert bool((distances[0] <= distances[1] * (1 + 1e-6)).all())
    nearest = torch.round(weight.unflatten(-1, (-1, 32)) / found.scale.float().unsqueeze(-1)).flatten(-2)
    highest = found.qmax.float().unsqueeze(1)
    nearest = nearest.clamp(-highest - int(not quantizer.symmetric), highest)
    # The code of a group's largest weight stays, although the best scale may have come to be larger.
    largest = weight.unflatten(-1, (-1, 32)).abs()
    kept = (largest == largest.amax(dim=-1, keepdim=True)).flatten(-2) if quantizer.signed_scale else False
    assert bool(((found.codes == nearest) | kept).all())


def test_columns_without_input_are_rounded_as_they_are() -> None:
    weight, inputs = draw(4)
    inputs[:, :32] = 0
    quantizer = build("int", bits=4, group_size=32)
    found = calibrated_codes(weight, inputs.T @ inputs, quantizer)
    alone = calibrated_codes(weight[:, :32], torch.eye(32), quantizer)
    assert torch.equal(found.codes[:, :32], alone.codes) and torch.equal(found.scale[:, :1], alone.scale)


def test_rows_that_depend_on_the_weights_are_refused() -> None:
    weight, inputs = draw(5, rows=64)
    quantizer = build("sqmp", high_ratio=0.25, placement="variance_rows", group_size=32)
    with pytest.raises(PlanError, match="depends on the weights themselves"):
        calibrated_codes(weight, 100 * inputs.T @ inputs, quantizer)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    scale_dtype=st.sampled_from(["float16", "float16_bfloat16", "float32"]),
    magnitude=st.sampled_from([1e-6, 1.0, 1e4]),
)
def test_the_best_scale_is_one_of_the_multiples_as_the_quantizer_stores_them(
    seed: int, scale_dtype: str, magnitude: float
) -> None:
    weight = draw(seed)[0] * magnitude
    importance = torch.rand(32, generator=torch.Generator().manual_seed(seed)) + 0.1
    quantizer = build("int", bits=4, group_size=32, scale_dtype=scale_dtype)
    plain = quantizer.quantize(weight[:, :32])
    own, limit = plain.scale[:, 0], torch.full((len(weight),), 7.0)
    found = best_scale(weight[:, :32], own, -limit, limit, importance, quantizer)

    def cost(scale: Tensor) -> Tensor:
        step = scale.float().unsqueeze(1)
        codes = torch.round(weight[:, :32] / step).clamp(-7, 7)
        return ((weight[:, :32] - codes * step) ** 2 * importance).sum(dim=1)

    assert found.dtype == own.dtype and bool((cost(found) <= cost(own)).all())
    multiples = torch.stack([round_scale(own.float() * factor, scale_dtype) for factor in FACTORS])
    assert bool((multiples == found.float()).any(dim=0).all())
