"""Losses and selectors against the original release (METHOD 10 and 11)."""

import re
from fractions import Fraction
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from edgerazor.core.outputs import ModelOutput, PositionMask, Targets
from edgerazor.errors import PlanError
from tests.golden_cases import REGISTRY, cases, difference, manifest, params, selector, targets, tensors

OWN_LAYERS = {"feature_mse": {"name": "fixed", "layers": [0]}, "attention_relation": {"name": "fixed", "layers": [1]}}


def loss_of(ours: dict[str, Any]) -> Any:
    values = {key: value for key, value in ours.items() if value is not None}
    if ours["name"] in OWN_LAYERS:
        values.setdefault("layers", OWN_LAYERS[ours["name"]])
    if ours["reduction"] is None:
        values["reduction"] = "sum"
    return REGISTRY.build(params("loss", values))


def output_of(name: str, tensor: Tensor) -> ModelOutput:
    if name == "attention_relation":
        return ModelOutput(attentions=(tensor,))
    return ModelOutput(hidden_states=(tensor,)) if name == "feature_mse" else ModelOutput.from_logits(tensor)


def inputs_of(case: dict[str, Any]) -> tuple[Tensor, Tensor, Targets]:
    held = tensors("losses")
    student, teacher = held[case["student"]].clone().requires_grad_(True), held[case["teacher"]]
    labels = held[case["labels"]] if case["labels"] else None
    shape = (student.shape[0], student.shape[2] if student.ndim == 4 else student.shape[1])
    return student, teacher, targets(labels, shape)


def value_and_gradient(case: dict[str, Any]) -> tuple[Tensor, Tensor]:
    student, teacher, aims = inputs_of(case)
    name = case["ours"]["name"]
    value = loss_of(case["ours"])(output_of(name, student), output_of(name, teacher), aims).value
    value.backward()
    assert student.grad is not None
    return value.detach(), student.grad


def expected_of(case: dict[str, Any]) -> tuple[Tensor, Tensor]:
    held = tensors("losses")
    return held[case["value"]].sum(), held[case["grad_student"]]


@cases("losses", "same")
def test_value_and_gradient_agree(case: dict[str, Any]) -> None:
    value, gradient = value_and_gradient(case)
    expected, expected_gradient = expected_of(case)
    assert difference(value, expected) <= 1e-5
    assert difference(gradient, expected_gradient) <= 1e-4


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case["id"])
        for case in manifest()["losses"]["cases"]
        if case["match"] and case["ours"]["reduction"] is None
    ],
)
def test_values_per_position_agree(case: dict[str, Any]) -> None:
    student, teacher, aims = inputs_of(case)
    name, mask = case["ours"]["name"], aims.tokens.mask
    expected = tensors("losses")[case["value"]]
    expected = expected.sum(dim=-1) if expected.ndim == 3 else expected
    loss, found = loss_of(case["ours"]), torch.zeros(mask.shape)
    for place in mask.nonzero().tolist():
        alone = PositionMask.of(torch.zeros_like(mask).index_put_(tuple(torch.tensor(place)), torch.tensor(True)))
        only = Targets(aims.labels, alone, alone, aims.attention)
        found[*place] = loss(output_of(name, student), output_of(name, teacher), only).value.detach()
    assert difference(found, expected) <= 1e-5


@cases("losses", "different")
def test_values_differ_where_the_original_is_at_fault(case: dict[str, Any]) -> None:
    value, gradient = value_and_gradient(case)
    expected, expected_gradient = expected_of(case)
    assert difference(value, expected) > 1e-5 or difference(gradient, expected_gradient) > 1e-4
    factor = re.search(r"ours is this value ([*/]) ([\d/]+)", case["reason"])
    if factor:
        share = Fraction(factor[2]) if factor[1] == "*" else 1 / Fraction(factor[2])
        assert difference(value, expected * float(share)) <= 1e-5
        assert difference(gradient, expected_gradient * float(share)) <= 1e-4


@cases("losses", "refused")
def test_there_are_no_targets_without_labels(case: dict[str, Any]) -> None:
    assert case["ours"]["name"] == "cakld" and case["labels"] is None
    aims = inputs_of(case)[2]
    with pytest.raises(TypeError, match="labels"):
        Targets(tokens=aims.tokens, predictions=aims.predictions, attention=aims.attention)  # type: ignore[call-arg]


def chosen(case: dict[str, Any], states: tuple[Tensor, ...]) -> list[int]:
    mask = torch.ones(states[0].shape[:2], dtype=torch.bool)
    weights = selector(case["ours"]).weights(states, mask)
    assert float(weights.sum()) == pytest.approx(1) and len(weights) == len(states)
    return weights.nonzero().flatten().tolist()


def states_of(case: dict[str, Any]) -> tuple[Tensor, ...]:
    if "hidden_states" in case:
        return tuple(tensors("layer_selection")[name] for name in case["hidden_states"])
    return tuple(torch.zeros(1, 2, 4) for _ in range(case["num_layers"]))


@cases("layer_selection", "same", part="adaptive")
def test_adaptive_layers_agree(case: dict[str, Any]) -> None:
    assert chosen(case, states_of(case)) == case["expected"]


@cases("layer_selection", "same", part="fixed")
def test_fixed_layers_agree(case: dict[str, Any]) -> None:
    assert chosen(case, states_of(case)) == case["expected"]


@cases("layer_selection", "different", part="fixed")
def test_fixed_layers_are_distinct(case: dict[str, Any]) -> None:
    found = chosen(case, states_of(case))
    assert found == case["expected"] and found != case["resolved"]


@cases("layer_selection", "refused", part="fixed")
def test_fixed_layers_out_of_range_are_refused(case: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match="out of range"):
        chosen(case, states_of(case))


@cases("layer_selection", "refused", part="adaptive")
def test_too_many_adaptive_layers_are_refused(case: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match="top_k"):
        chosen(case, states_of(case))


def composed(case: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Total, unweighted value per loss, and the student's tensors with their gradients."""
    held = tensors("kd_composition")
    layers = range(5)
    student = {
        "logits": held["student_logits"],
        **{f"hidden.{layer}": held[f"student_hidden.{layer}"] for layer in layers},
    }
    student |= {f"attn.{layer}": held[f"student_attn.{layer}"] for layer in range(4)}
    student = {name: tensor.clone().requires_grad_(True) for name, tensor in student.items()}

    def output(of: dict[str, Tensor]) -> ModelOutput:
        return ModelOutput.from_logits(
            of["logits"],
            hidden_states=tuple(of[f"hidden.{layer}"] for layer in layers),
            attentions=tuple(of[f"attn.{layer}"] for layer in range(4)),
        )

    teacher = {name: held[f"teacher_{name}"] for name in student}
    losses = [REGISTRY.build(params("loss", values)) for values in case["ours"]["losses"]]
    aims = targets(held["labels"], tuple(held["labels"].shape))
    values = [loss(output(student), output(teacher), aims).value for loss in losses]
    total = sum(values) + case["ours"]["task_weight"] * case["task_loss"]
    total.backward()
    details = {
        f"loss_{index}": value.detach() / loss.params.weight
        for index, (value, loss) in enumerate(zip(values, losses, strict=True), start=1)
    }
    return total.detach(), details, student


@cases("kd_composition", "same")
def test_the_total_agrees(case: dict[str, Any]) -> None:
    total, details, student = composed(case)
    held = tensors("kd_composition")
    assert difference(total, torch.tensor(case["total"])) <= 1e-5
    for name, expected in case["details"].items():
        assert difference(details[name], torch.tensor(expected)) <= 1e-5
    expected_gradients = {
        "logits": "grad_logits",
        **{f"hidden.{layer}": f"grad_hidden.{layer}" for layer in case["grad_hidden_layers"]},
        **{f"attn.{layer}": f"grad_attn.{layer}" for layer in case["grad_attn_layers"]},
    }
    for name, tensor in student.items():
        key = f"{case['id']}.{expected_gradients.get(name)}"
        if key in held:
            assert tensor.grad is not None and difference(tensor.grad, held[key]) <= 1e-4
        elif name in expected_gradients and name != "logits":
            assert tensor.grad is not None and bool(tensor.grad.any())
        else:
            assert tensor.grad is None or not bool(tensor.grad.any())


@cases("kd_composition", "different")
def test_the_total_differs_where_the_original_is_at_fault(case: dict[str, Any]) -> None:
    total, _, _ = composed(case)
    assert "by chance" in case["reason"] or difference(total, torch.tensor(case["total"])) > 1e-5


@cases("kd_composition", "refused")
def test_what_the_original_leaves_out_is_refused(case: dict[str, Any]) -> None:
    both = case["config"].get("loss_2", {}).get("layer_index")
    losses = [dict(loss) for loss in case["ours"]["losses"]]
    if isinstance(both, list) and "adaptive" in both:
        losses[-1]["layers"] = {**losses[-1]["layers"], "layers": [layer for layer in both if layer != "adaptive"]}
    with pytest.raises(ValidationError):
        for loss in losses:
            REGISTRY.params("loss", loss["name"], **{key: value for key, value in loss.items() if key != "name"})


@cases("moe", "same")
def test_router_z_agrees(case: dict[str, Any]) -> None:
    loss = REGISTRY.build(params("loss", case["ours"]))
    logits = tensors("moe")[case["input"]]
    output = ModelOutput(router_logits=tuple(logits))
    value = loss(output, ModelOutput(), targets(None, (1, logits.shape[1]))).value
    assert difference(value / loss.params.weight, torch.tensor(case["router_z_loss"])) <= 1e-6
