"""The laws of distillation losses (METHOD 4.1 and 4.7)."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from edgerazor.core.contracts import Signal, teacher_signals
from edgerazor.core.discovery import load_plugins
from edgerazor.core.outputs import LossOutput, ModelOutput, Targets, TeacherRows
from edgerazor.core.registry import Registry
from edgerazor.schemas.components import LossParams
from edgerazor.testing.laws import expect, hold_for_examples
from edgerazor.testing.loss_examples import BatchExample, Signals, batch_examples, nothing_to_learn, with_other_padding

AtTeacher = Literal["zero", "minimum", "any"]
_TOLERANCE = 2e-5


@dataclass(frozen=True)
class _Subject:
    """A loss, built anew for every example, and what its author says about it."""

    params: LossParams
    registry: Registry
    at_teacher: AtTeacher
    chooses_per_pass: bool

    def build(self, example: BatchExample, **changed: Any) -> Any:
        loss = self.registry.build(self.params.model_copy(update=changed))
        if hasattr(loss, "check_models"):
            loss.check_models(example.config(), example.config())
        return loss

    def call(self, example: BatchExample, student: Signals, teacher: Signals, targets: Targets) -> LossOutput:
        """The loss of whole outputs that hold the declared signals."""
        loss = self.build(example)
        found: LossOutput = loss(*_outputs(loss, example, student, teacher), targets)
        return found


def check_loss(
    params: LossParams,
    *,
    layers: int = 4,
    at_teacher: AtTeacher = "zero",
    chooses_per_pass: bool = False,
    registry: Registry | None = None,
) -> None:
    """Hold a distillation loss to the laws of its contract, on about twenty drawn batches each.

    Args:
        params: its parameters, nested components included.
        layers: decoder layers of the models that are compared; as many as its layer selection needs.
        at_teacher: what the loss is where the student equals its teacher: "zero", "minimum" (not zero, but nowhere
            less), or "any" for a loss that does not compare the two.
        chooses_per_pass: True if it makes a choice per forward pass, from what shares the batch; the law of
            accumulation does not hold then (METHOD 4.7).
        registry: builds it; None loads the installed plugins.

    Raises:
        BrokenLawError: the first law that it breaks, with what was found and the example that shows it.
        PluginError: it cannot be built.
    """
    registry = registry or load_plugins()
    registry.build(params)
    subject = _Subject(params, registry, at_teacher, chooses_per_pass)
    hold_for_examples(LAWS, params.name, lambda: subject, batch_examples(layers))


def the_declared_signals_are_enough(subject: _Subject, example: BatchExample) -> None:
    loss = subject.build(example)
    expect(loss.signals, "it declares no signals")
    for kind, signals in (("signals", loss.signals), ("teacher_signals", teacher_signals(loss))):
        unknown = [one for one in signals if not isinstance(one, Signal)]
        expect(not unknown, f"its {kind} hold {unknown}; expected members of edgerazor.Signal")
    names, of_teacher = (", ".join(sorted(one.value for one in some)) for some in (loss.signals, teacher_signals(loss)))
    names += f" (of the teacher {of_teacher or 'nothing'})" if of_teacher != names else ""
    try:
        subject.call(example, example.signals(0), example.signals(1), example.targets())
    except Exception as error:
        raise AssertionError(f"given {names} alone it raises {type(error).__name__}: {error}") from error


def the_value_is_a_finite_scalar(subject: _Subject, example: BatchExample) -> None:
    for factor, dtype in ((1.0, torch.float32), (100.0, torch.float32), (1.0, torch.bfloat16)):
        student, teacher = (
            {name: (factor * tensor).to(dtype) for name, tensor in example.signals(who).items()} for who in (0, 1)
        )
        found = subject.call(example, student, teacher, example.targets())
        expect(isinstance(found, LossOutput), f"it returns a {type(found).__name__}, not a LossOutput")
        expect(found.value.shape == (), f"the value has shape {list(found.value.shape)}, not []")
        expect(found.value.dtype == torch.float32, f"the value of {dtype} inputs is {found.value.dtype}, not float32")
        expect(torch.isfinite(found.value), f"the value is {found.value.item()}")


def the_same_batch_gives_the_same_value(subject: _Subject, example: BatchExample) -> None:
    student, teacher = example.signals(0), example.signals(1)
    first, second = (_number(subject.call(example, student, teacher, example.targets())) for _ in range(2))
    expect(first == second, f"the second value is {second}, the first was {first}")
    for name, signals in (("student", student), ("teacher", teacher)):
        expected = example.signals(name == "teacher")
        changed = [key for key, tensor in signals.items() if not torch.equal(tensor, expected[key])]
        expect(not changed, f"it changes {', '.join(changed)} of the {name}")


def the_gradient_reaches_the_student_alone(subject: _Subject, example: BatchExample) -> None:
    student, teacher = example.signals(0), example.signals(1)
    found = subject.call(example, student, teacher, example.targets())
    gradients = _gradients(found.value, {**student, **{f"teacher's {name}": one for name, one in teacher.items()}})
    expect(any(bool(gradients[name].any()) for name in student), "the student gets no gradient")
    for name, gradient in gradients.items():
        expect(torch.isfinite(gradient).all(), f"the gradient of the {name} is not finite")
        expect(name in student or not gradient.any(), f"the {name} gets a gradient; detach it")


def the_weight_is_a_factor(subject: _Subject, example: BatchExample) -> None:
    student, teacher, targets = example.signals(0), example.signals(1), example.targets()
    values = []
    for weight in (1.0, 3.0):
        loss = subject.build(example, weight=weight)
        output = loss(*_outputs(loss, example, student, teacher), targets)
        values.append(_number(output))
    _expect_close(values[1], 3 * values[0], "weight 3 does not give three times the value of weight 1")


def what_has_no_label_does_not_matter(subject: _Subject, example: BatchExample) -> None:
    student, targets = example.signals(0), example.targets()
    found = subject.call(example, student, example.signals(1), targets)
    gradients = _gradients(found.value, student)
    at_logits = gradients["final_hidden"][~targets.predictions.mask]
    expect(not at_logits.any(), "logits get a gradient where the next label is masked; use targets.predictions")
    at_states = gradients["hidden_states"][:, ~targets.tokens.mask]
    expect(not at_states.any(), "hidden states get a gradient where the label is masked; use targets.tokens")


def padding_does_not_matter(subject: _Subject, example: BatchExample) -> None:
    student, teacher = example.signals(0), example.signals(1)
    expected = _number(subject.call(example, student, teacher, example.targets()))
    for more, what in (
        (0, "other numbers at padded positions change the value"),
        (3, "more padding changes the value"),
    ):
        longer, ours = with_other_padding(example, student, more=more)
        _, theirs = with_other_padding(example, teacher, more=more)
        _expect_close(_number(subject.call(longer, ours, theirs, longer.targets())), expected, what)


def a_batch_without_labels_gives_zero(subject: _Subject, example: BatchExample) -> None:
    student, teacher = example.signals(0), example.signals(1)
    found = subject.call(example, student, teacher, nothing_to_learn(example.targets()))
    expect(found.value == 0, f"the value is {found.value.item()}")
    for name, gradient in _gradients(found.value, student).items():
        expect(not gradient.any(), f"the student's {name} gets a gradient: {gradient.abs().max().item()}")
    for name, figure in {**found.metrics, **found.shares}.items():
        expect(torch.isfinite(figure), f"the figure {name} is {figure.item()}")


def micro_batches_add_up_to_the_step(subject: _Subject, example: BatchExample) -> None:
    if subject.chooses_per_pass:
        return
    student, teacher, loss = example.signals(0), example.signals(1), subject.build(example)
    whole = subject.call(example, student, teacher, example.targets()).value
    parts = whole.new_zeros(())
    for index in range(len(example.rows)):
        row = slice(index, index + 1)
        outputs = _outputs(loss, example, student, teacher, row)
        parts = parts + loss(*outputs, example.targets_of(row)).value
    _expect_close(
        float(parts.detach()),
        float(whole.detach()),
        "its micro-batches do not add up to the whole; take means with targets.….shares",
    )
    expected = _gradients(whole, student)
    for name, gradient in _gradients(parts, student).items():
        close = torch.allclose(gradient, expected[name], rtol=1e-3, atol=_TOLERANCE)
        expect(close, f"gradients of {name} of its micro-batches do not add up to that of the whole")


def figures_are_detached_scalars(subject: _Subject, example: BatchExample) -> None:
    found = subject.call(example, example.signals(0), example.signals(1), example.targets())
    for name, figure in (*found.metrics.items(), *found.shares.items()):
        expect(isinstance(figure, Tensor), f"the figure {name} is a {type(figure).__name__}, not a tensor")
        expect(figure.shape == (), f"the figure {name} has shape {list(figure.shape)}, not []")
        expect(not figure.requires_grad, f"the figure {name} is not detached")
    both = found.metrics.keys() & found.shares.keys()
    expect(not both, f"{', '.join(both)} is among metrics and shares; the log has one name for each")


def names_of_figures_do_not_depend_on_the_batch(subject: _Subject, example: BatchExample) -> None:
    student, teacher, loss = example.signals(0), example.signals(1), subject.build(example)
    whole = subject.call(example, student, teacher, example.targets())
    nothing = subject.call(example, student, teacher, nothing_to_learn(example.targets()))
    last = slice(len(example.rows) - 1, None)
    outputs = _outputs(loss, example, student, teacher, last)
    part = loss(*outputs, example.targets_of(last))
    for what, other in (("a batch without labels", nothing), ("the last sequence", part)):
        for kind in ("metrics", "shares"):
            names, others = list(getattr(whole, kind)), list(getattr(other, kind))
            expect(names == others, f"{kind} of the batch are {names}, of {what} {others}")


def a_student_like_its_teacher_has_the_least_loss(subject: _Subject, example: BatchExample) -> None:
    if subject.at_teacher == "any":
        return
    student = example.signals(0)
    same = subject.call(example, student, example.signals(0), example.targets())
    value = _number(same)
    if subject.at_teacher == "zero":
        expect(abs(value) < _TOLERANCE, f"the value is {value}, not 0; is at_teacher 'minimum' or 'any'?")
    noise = example.signals(2)
    away = {name: tensor + 0.1 * noise[name] for name, tensor in student.items()}
    further = _number(subject.call(example, away, example.signals(0), example.targets()))
    expect(further >= value - _TOLERANCE, f"the value is {value}, a little away from the teacher it is {further}")
    for name, gradient in _gradients(same.value, student).items():
        largest = float(gradient.abs().max())
        expect(largest < 1e-4, f"the student's {name} gets a gradient of {largest} where both agree")


def divergence_weights_give_what_the_call_gives(subject: _Subject, example: BatchExample) -> None:
    """Training uses the weights, in one pass with other losses; the call alone is what an author tests."""
    loss, targets = subject.build(example), example.targets()
    if not hasattr(loss, "divergence_weights"):
        return
    ours, theirs = (example.output(example.signals(who), loss.signals).logits.flatten(0, 1) for who in (0, 1))
    temperature, mask = loss.params.temperature, targets.predictions.mask.flatten()
    plain = theirs.log_softmax(dim=-1)
    labels = targets.next_labels().flatten().clamp(min=0)
    rows = TeacherRows(
        -(plain.exp() * plain).sum(dim=-1) * mask, plain.gather(-1, labels.unsqueeze(-1)).squeeze(-1) * mask
    )
    forward, reverse = loss.divergence_weights(rows, targets)
    log_p, log_q = ((one / temperature).log_softmax(dim=-1) for one in (theirs, ours))
    forward_kl = (log_p.exp() * (log_p - log_q)).sum(dim=-1) * temperature**2
    reverse_kl = (log_q.exp() * (log_q - log_p)).sum(dim=-1) * temperature**2
    weighted = (forward * forward_kl + reverse * reverse_kl)[mask].sum()
    called = _number(subject.call(example, example.signals(0), example.signals(1), targets))
    _expect_close(
        float(weighted.detach()), called, "the divergences times divergence_weights differ from the value of a call"
    )


LAWS = (
    the_declared_signals_are_enough,
    the_value_is_a_finite_scalar,
    figures_are_detached_scalars,
    the_same_batch_gives_the_same_value,
    the_gradient_reaches_the_student_alone,
    the_weight_is_a_factor,
    what_has_no_label_does_not_matter,
    padding_does_not_matter,
    a_batch_without_labels_gives_zero,
    micro_batches_add_up_to_the_step,
    names_of_figures_do_not_depend_on_the_batch,
    a_student_like_its_teacher_has_the_least_loss,
    divergence_weights_give_what_the_call_gives,
)


def _outputs(
    loss: Any, example: BatchExample, student: Signals, teacher: Signals, rows: slice = slice(None)
) -> tuple[ModelOutput, ModelOutput]:
    """What student and teacher give to a loss: of each what it says it reads, of the chosen rows."""
    return example.output(student, loss.signals, rows), example.output(teacher, teacher_signals(loss), rows)


def _number(output: LossOutput) -> float:
    return float(output.value.detach())


def _gradients(value: Tensor, leaves: Signals) -> Signals:
    """Of `value`; zero where it does not depend on a leaf."""
    if not value.requires_grad:
        return {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, retain_graph=True)
    zeros = (torch.zeros_like(leaf) for leaf in leaves.values())
    return {name: zero if one is None else one for name, one, zero in zip(leaves, found, zeros, strict=True)}


def _expect_close(found: float, expected: float, what: str) -> None:
    expect(abs(found - expected) <= _TOLERANCE + 1e-4 * abs(expected), f"{what}: {found}, not {expected}")
