"""A loss under test, and what its laws read off it."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from edgerazor.core.outputs import LossOutput, ModelOutput, Targets
from edgerazor.core.registry import Registry
from edgerazor.schemas.components import LossParams
from edgerazor.testing.laws import expect
from edgerazor.testing.loss_examples import BatchExample, Signals

AtTeacher = Literal["zero", "minimum", "any"]
TOLERANCE = 2e-5


@dataclass(frozen=True)
class LossCase:
    """A loss, built anew for every example, and what its author says about it."""

    params: LossParams
    registry: Registry
    at_teacher: AtTeacher
    chooses_per_pass: bool

    def build(self, example: BatchExample, **changed: Any) -> Any:
        loss = self.registry.build(self.params.model_copy(update=changed))
        loss.check_models(example.config(), example.config())
        return loss

    def call(self, example: BatchExample, student: Signals, teacher: Signals, targets: Targets) -> LossOutput:
        """The loss of whole outputs that hold the declared signals."""
        loss = self.build(example)
        found: LossOutput = loss(*outputs(loss, example, student, teacher), targets)
        return found


def outputs(
    loss: Any, example: BatchExample, student: Signals, teacher: Signals, rows: slice = slice(None)
) -> tuple[ModelOutput, ModelOutput]:
    """What student and teacher give to a loss: of each what it says it reads, of the chosen rows."""
    return example.output(student, loss.signals, rows), example.output(teacher, loss.teacher_signals, rows)


def number(output: LossOutput) -> float:
    """The value of a loss."""
    return float(output.value.detach())


def gradients_of(value: Tensor, leaves: Signals) -> Signals:
    """Gradients of `value` with respect to the leaves; zero where it does not depend on a leaf."""
    if not value.requires_grad:
        return {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, retain_graph=True)
    zeros = (torch.zeros_like(leaf) for leaf in leaves.values())
    return {
        name: zero if gradient is None else gradient for name, gradient, zero in zip(leaves, found, zeros, strict=True)
    }


def expect_close(found: float, expected: float, what: str) -> None:
    """Raise AssertionError that says `what` unless two values agree but for float32 sums in another order."""
    expect(abs(found - expected) <= TOLERANCE + 1e-4 * abs(expected), f"{what}: {found}, not {expected}")
