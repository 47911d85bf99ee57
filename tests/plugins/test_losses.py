"""Laws of every registered loss (METHOD 4.1 and 4.7): masks, means, gradients that reach the student."""

from itertools import pairwise
from typing import Any

import pytest
import torch

from edgerazor.core.contracts import Signal
from edgerazor.core.outputs import Targets
from tests.plugins.loss_cases import (
    BATCH,
    IGNORED,
    PER_FORWARD_PASS,
    accepts,
    attention,
    build,
    cases,
    drawn,
    gradients,
    labels,
    output,
    part_of_a_step,
    targets,
)

every_loss = pytest.mark.parametrize(("name", "values"), cases())
reductions = pytest.mark.parametrize("reduction", ["sequence_mean", "token_mean"])


@every_loss
@reductions
def test_the_gradient_reaches_the_student_alone(name: str, values: dict[str, Any], reduction: str) -> None:
    student, teacher = drawn(0), drawn(1)
    result = build(name, **values, reduction=reduction)(output(student), output(teacher), targets())
    assert result.value.shape == () and float(result.value.detach()) > 0
    found = gradients(result.value, student)
    assert any(bool(gradient.any()) for gradient in found.values())
    assert all(bool(torch.isfinite(gradient).all()) for gradient in found.values())
    again = build(name, **values, reduction=reduction)(output(student), output(teacher), targets())
    assert not any(bool(gradient.any()) for gradient in gradients(again.value, teacher).values())
    figures = [*result.metrics.values(), *result.shares.values()]
    assert figures and all(not figure.requires_grad and figure.shape == () for figure in figures)


@every_loss
def test_only_declared_signals_are_read(name: str, values: dict[str, Any]) -> None:
    loss = build(name, **values)
    declared = {signal.value for signal in loss.signals}
    assert declared and declared <= {signal.value for signal in Signal}
    student, teacher = drawn(0), drawn(1)
    found = gradients(loss(output(student), output(teacher), targets()).value, student)
    assert {signal for signal, gradient in found.items() if bool(gradient.any())} <= declared


@every_loss
def test_the_weight_is_a_factor(name: str, values: dict[str, Any]) -> None:
    student, teacher = output(drawn(0)), output(drawn(1))
    plain = build(name, **values)(student, teacher, targets()).value
    doubled = build(name, **values, weight=2.0 * build(name, **values).params.weight)(student, teacher, targets()).value
    torch.testing.assert_close(doubled, 2 * plain)


@every_loss
@reductions
def test_sequences_that_are_not_live_are_left_out(name: str, values: dict[str, Any], reduction: str) -> None:
    loss, student, teacher = build(name, **values, reduction=reduction), drawn(0), drawn(1)
    whole = loss(output(student), output(teacher), targets()).value
    live = slice(None, BATCH - 1)
    kept = Targets.from_labels(labels()[live], attention()[live])
    torch.testing.assert_close(whole, loss(output(student, live), output(teacher, live), kept).value)
    for gradient in gradients(whole, student).values():
        if gradient.shape[0] == BATCH:
            assert not bool(gradient[-1].any())


@every_loss
@reductions
def test_without_live_sequences_the_loss_is_zero(name: str, values: dict[str, Any], reduction: str) -> None:
    student, teacher = drawn(0), drawn(1)
    nothing = Targets.from_labels(torch.full_like(labels(), IGNORED), torch.zeros_like(attention()))
    result = build(name, **values, reduction=reduction)(output(student), output(teacher), nothing)
    assert float(result.value.detach()) == 0
    assert not any(bool(gradient.any()) for gradient in gradients(result.value, student).values())
    assert all(bool(torch.isfinite(figure)) for figure in (*result.metrics.values(), *result.shares.values()))


@every_loss
def test_masked_positions_have_no_gradient(name: str, values: dict[str, Any]) -> None:
    student, teacher, aims = drawn(0), drawn(1), targets()
    found = gradients(build(name, **values)(output(student), output(teacher), aims).value, student)
    assert not bool(found["logits"][~aims.predictions.mask].any())
    assert not bool(found["hidden_states"][:, ~aims.tokens.mask].any())


@every_loss
@reductions
def test_micro_batches_add_up_to_the_step(name: str, values: dict[str, Any], reduction: str) -> None:
    """Values and gradients of 1 x 5, 2 + 3 and 5 x 1 agree, unless a choice is made per forward pass."""
    if any(choice.items() <= values.items() for choice in PER_FORWARD_PASS) or not accepts(name, "reduction"):
        pytest.skip("it depends on what shares the forward pass")
    loss, student, teacher = build(name, **values, reduction=reduction), drawn(0), drawn(1)
    whole = loss(output(student), output(teacher), targets()).value
    expected = gradients(whole, student)
    for cuts in ([0, 2, 5], [0, 1, 2, 3, 4, 5]):
        rows = [slice(start, stop) for start, stop in pairwise(cuts)]
        parts = sum(loss(output(student, row), output(teacher, row), part_of_a_step(row)).value for row in rows)
        torch.testing.assert_close(parts, whole)
        for gradient, other in zip(gradients(parts, student).values(), expected.values(), strict=True):
            torch.testing.assert_close(gradient, other)


@every_loss
@reductions
def test_figures_have_the_same_names_in_every_batch_and_shares_add_up(
    name: str, values: dict[str, Any], reduction: str
) -> None:
    """Ranks add their figures by name, and the shares of a step are those of its micro-batches."""
    loss, student, teacher = build(name, **values, reduction=reduction), drawn(0), drawn(2)
    whole = loss(output(student), output(teacher), targets())
    assert not whole.metrics.keys() & whole.shares.keys()
    rows = [slice(row, row + 1) for row in range(BATCH)]
    parts = [loss(output(student, row), output(teacher, row), part_of_a_step(row)) for row in rows]
    for part in parts:
        assert list(part.metrics) == list(whole.metrics) and list(part.shares) == list(whole.shares)
    if not any(choice.items() <= values.items() for choice in PER_FORWARD_PASS):
        for key, figure in whole.shares.items():
            torch.testing.assert_close(sum(part.shares[key] for part in parts), figure)


@pytest.mark.parametrize(("name", "values"), [case for case in cases() if case.values[0] != "router_z"])
def test_a_student_equal_to_its_teacher_has_no_loss(name: str, values: dict[str, Any]) -> None:
    student, teacher = drawn(0), drawn(0)
    value = build(name, **values)(output(student), output(teacher), targets()).value
    assert float(value.detach()) == pytest.approx(0, abs=1e-12)
    found = gradients(value, student)
    # Rows of probabilities can only move along directions that sum to 0.
    found["attentions"] = found["attentions"] - found["attentions"].mean(dim=-1, keepdim=True)
    assert all(float(gradient.abs().max()) <= 1e-12 for gradient in found.values())
