"""The laws of distillation losses (METHOD 4.1 and 4.7)."""

from collections.abc import Iterable

import torch
from torch import Tensor

from edgerazor.core.contracts import Signal
from edgerazor.core.discovery import load_plugins
from edgerazor.core.outputs import LossOutput
from edgerazor.core.registry import Registry
from edgerazor.schemas.components import LossParams
from edgerazor.testing.laws import expect, hold_for_examples
from edgerazor.testing.loss_case import TOLERANCE, AtTeacher, LossCase, expect_close, gradients_of, number, outputs
from edgerazor.testing.loss_examples import BatchExample, batch_examples, nothing_to_learn, with_other_padding
from edgerazor.testing.loss_members import (
    divergence_weights_give_what_the_call_gives,
    further_figures_are_of_the_teacher_alone,
    models_it_cannot_compare_are_a_plan_error,
    only_the_named_teacher_layers_are_read,
)


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
    case = LossCase(params, registry, at_teacher, chooses_per_pass)
    hold_for_examples(LAWS, params.name, lambda: case, batch_examples(layers))


def the_declared_signals_are_enough(case: LossCase, example: BatchExample) -> None:
    loss = case.build(example)
    expect(loss.signals, "it declares no signals")
    for kind, signals in (("signals", loss.signals), ("teacher_signals", loss.teacher_signals)):
        unknown = [signal for signal in signals if not isinstance(signal, Signal)]
        expect(not unknown, f"its {kind} hold {unknown}; expected members of edgerazor.Signal")
    names, of_teacher = (
        ", ".join(sorted(signal.value for signal in signals)) for signals in (loss.signals, loss.teacher_signals)
    )
    names += f" (of the teacher {of_teacher or 'nothing'})" if of_teacher != names else ""
    try:
        case.call(example, example.signals(0), example.signals(1), example.targets())
    except Exception as error:
        raise AssertionError(f"given {names} alone it raises {type(error).__name__}: {error}") from error


def the_value_is_a_finite_scalar(case: LossCase, example: BatchExample) -> None:
    for factor, dtype in ((1.0, torch.float32), (100.0, torch.float32), (1.0, torch.bfloat16)):
        student, teacher = (
            {name: (factor * tensor).to(dtype) for name, tensor in example.signals(who).items()} for who in (0, 1)
        )
        found = case.call(example, student, teacher, example.targets())
        expect(isinstance(found, LossOutput), f"it returns a {type(found).__name__}, not a LossOutput")
        expect(found.value.shape == (), f"the value has shape {list(found.value.shape)}, not []")
        expect(found.value.dtype == torch.float32, f"the value of {dtype} inputs is {found.value.dtype}, not float32")
        expect(torch.isfinite(found.value), f"the value is {found.value.item()}")


def the_same_batch_gives_the_same_value(case: LossCase, example: BatchExample) -> None:
    student, teacher = example.signals(0), example.signals(1)
    first, second = (number(case.call(example, student, teacher, example.targets())) for _ in range(2))
    expect(first == second, f"the second value is {second}, the first was {first}")
    for name, signals in (("student", student), ("teacher", teacher)):
        expected = example.signals(name == "teacher")
        changed = [key for key, tensor in signals.items() if not torch.equal(tensor, expected[key])]
        expect(not changed, f"it changes {', '.join(changed)} of the {name}")


def the_gradient_reaches_the_student_alone(case: LossCase, example: BatchExample) -> None:
    student, teacher = example.signals(0), example.signals(1)
    found = case.call(example, student, teacher, example.targets())
    gradients = gradients_of(
        found.value, {**student, **{f"teacher's {name}": tensor for name, tensor in teacher.items()}}
    )
    expect(any(bool(gradients[name].any()) for name in student), "the student gets no gradient")
    for name, gradient in gradients.items():
        expect(torch.isfinite(gradient).all(), f"the gradient of the {name} is not finite")
        expect(name in student or not gradient.any(), f"the {name} gets a gradient; detach it")


def the_weight_is_a_factor(case: LossCase, example: BatchExample) -> None:
    student, teacher, targets = example.signals(0), example.signals(1), example.targets()
    values = []
    for weight in (1.0, 3.0):
        loss = case.build(example, weight=weight)
        output = loss(*outputs(loss, example, student, teacher), targets)
        values.append(number(output))
    expect_close(values[1], 3 * values[0], "weight 3 does not give three times the value of weight 1")


def what_has_no_label_does_not_matter(case: LossCase, example: BatchExample) -> None:
    student, targets = example.signals(0), example.targets()
    found = case.call(example, student, example.signals(1), targets)
    gradients = gradients_of(found.value, student)
    at_logits = gradients["final_hidden"][~targets.predictions.mask]
    expect(not at_logits.any(), "logits get a gradient where the next label is masked; use targets.predictions")
    at_states = gradients["hidden_states"][:, ~targets.tokens.mask]
    expect(not at_states.any(), "hidden states get a gradient where the label is masked; use targets.tokens")


def padding_does_not_matter(case: LossCase, example: BatchExample) -> None:
    student, teacher = example.signals(0), example.signals(1)
    expected = number(case.call(example, student, teacher, example.targets()))
    for more, what in (
        (0, "other numbers at padded positions change the value"),
        (3, "more padding changes the value"),
    ):
        longer, ours = with_other_padding(example, student, more=more)
        _, theirs = with_other_padding(example, teacher, more=more)
        expect_close(number(case.call(longer, ours, theirs, longer.targets())), expected, what)


def a_batch_without_labels_gives_zero(case: LossCase, example: BatchExample) -> None:
    student, teacher = example.signals(0), example.signals(1)
    found = case.call(example, student, teacher, nothing_to_learn(example.targets()))
    expect(found.value == 0, f"the value is {found.value.item()}")
    for name, gradient in gradients_of(found.value, student).items():
        expect(not gradient.any(), f"the student's {name} gets a gradient: {gradient.abs().max().item()}")
    for name, figure in {**found.metrics, **found.shares}.items():
        expect(torch.isfinite(figure), f"the figure {name} is {figure.item()}")


def micro_batches_add_up_to_the_step(case: LossCase, example: BatchExample) -> None:
    if case.chooses_per_pass:
        return
    student, teacher, loss = example.signals(0), example.signals(1), case.build(example)
    whole = case.call(example, student, teacher, example.targets()).value
    parts = whole.new_zeros(())
    for index in range(len(example.rows)):
        row = slice(index, index + 1)
        given = outputs(loss, example, student, teacher, row)
        parts = parts + loss(*given, example.targets_of(row)).value
    expect_close(
        float(parts.detach()),
        float(whole.detach()),
        "its micro-batches do not add up to the whole; take means with targets.….shares",
    )
    expected = gradients_of(whole, student)
    for name, gradient in gradients_of(parts, student).items():
        close = torch.allclose(gradient, expected[name], rtol=1e-3, atol=TOLERANCE)
        expect(close, f"gradients of {name} of its micro-batches do not add up to that of the whole")


def figures_are_detached_scalars(case: LossCase, example: BatchExample) -> None:
    found = case.call(example, example.signals(0), example.signals(1), example.targets())
    for name, figure in (*found.metrics.items(), *found.shares.items()):
        expect(isinstance(figure, Tensor), f"the figure {name} is a {type(figure).__name__}, not a tensor")
        expect(figure.shape == (), f"the figure {name} has shape {list(figure.shape)}, not []")
        expect(not figure.requires_grad, f"the figure {name} is not detached")
    both = found.metrics.keys() & found.shares.keys()
    expect(not both, f"{', '.join(both)} is among metrics and shares; the log has one name for each")


def names_of_figures_do_not_depend_on_the_batch(case: LossCase, example: BatchExample) -> None:
    student, teacher, loss = example.signals(0), example.signals(1), case.build(example)
    whole = case.call(example, student, teacher, example.targets())
    nothing = case.call(example, student, teacher, nothing_to_learn(example.targets()))
    last = slice(len(example.rows) - 1, None)
    given = outputs(loss, example, student, teacher, last)
    part = loss(*given, example.targets_of(last))
    for what, other in (("a batch without labels", nothing), ("the last sequence", part)):
        for kind in ("metrics", "shares"):
            names, others = list(getattr(whole, kind)), list(getattr(other, kind))
            expect(names == others, f"{kind} of the batch are {names}, of {what} {others}")


def a_student_like_its_teacher_has_the_least_loss(case: LossCase, example: BatchExample) -> None:
    if case.at_teacher == "any":
        return
    student = example.signals(0)
    same = case.call(example, student, example.signals(0), example.targets())
    value = number(same)
    if case.at_teacher == "zero":
        expect(abs(value) < TOLERANCE, f"the value is {value}, not 0; is at_teacher 'minimum' or 'any'?")
    noise = example.signals(2)
    away = {name: tensor + 0.1 * noise[name] for name, tensor in student.items()}
    further = number(case.call(example, away, example.signals(0), example.targets()))
    expect(further >= value - TOLERANCE, f"the value is {value}, a little away from the teacher it is {further}")
    for name, gradient in gradients_of(same.value, student).items():
        largest = float(gradient.abs().max())
        expect(largest < 1e-4, f"the student's {name} gets a gradient of {largest} where both agree")


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
    further_figures_are_of_the_teacher_alone,
    only_the_named_teacher_layers_are_read,
    models_it_cannot_compare_are_a_plan_error,
)


def _names(signals: Iterable[Signal]) -> str:
    return ", ".join(sorted(signal.value for signal in signals))
