"""The laws of what a loss may have besides its call (`DistillationLoss`, `WeighsDivergences`)."""

import torch
from torch import Tensor

from edgerazor.core.contracts import Signal, WeighsDivergences
from edgerazor.core.outputs import TeacherRows
from edgerazor.errors import PlanError
from edgerazor.testing.laws import expect
from edgerazor.testing.loss_case import LossCase, expect_close, number
from edgerazor.testing.loss_examples import BatchExample


def divergence_weights_give_what_the_call_gives(case: LossCase, example: BatchExample) -> None:
    """Training uses the weights, in one pass with other losses; the call alone is what an author tests."""
    loss, targets = case.build(example), example.targets()
    if not isinstance(loss, WeighsDivergences):
        return
    ours, theirs = (example.output(example.signals(who), loss.signals).logits.flatten(0, 1) for who in (0, 1))
    temperature, mask = loss.temperature, targets.predictions.mask.flatten()
    plain = theirs.log_softmax(dim=-1)
    labels = targets.next_labels().flatten().clamp(min=0)
    rows = TeacherRows(
        -(plain.exp() * plain).sum(dim=-1) * mask, plain.gather(-1, labels.unsqueeze(-1)).squeeze(-1) * mask
    )
    forward, reverse = loss.divergence_weights(rows, targets)
    log_p, log_q = ((logits / temperature).log_softmax(dim=-1) for logits in (theirs, ours))
    forward_kl = (log_p.exp() * (log_p - log_q)).sum(dim=-1) * temperature**2
    reverse_kl = (log_q.exp() * (log_q - log_p)).sum(dim=-1) * temperature**2
    weighted = (forward * forward_kl + reverse * reverse_kl)[mask].sum()
    called = number(case.call(example, example.signals(0), example.signals(1), targets))
    expect_close(
        float(weighted.detach()), called, "the divergences times divergence_weights differ from the value of a call"
    )


def only_the_named_teacher_layers_are_read(case: LossCase, example: BatchExample) -> None:
    """A run computes no other hidden states of the teacher than `teacher_layers` names."""
    student, teacher, loss = example.signals(0), example.signals(1), case.build(example)
    named = loss.teacher_layers(example.layers)
    if named is None or Signal.HIDDEN_STATES not in loss.teacher_signals:
        return
    states = range(example.layers + 1)
    unknown = sorted(set(named) - set(states))
    expect(not unknown, f"teacher_layers({example.layers}) names {unknown}; hidden states are 0 to {example.layers}")
    expected = number(case.call(example, student, teacher, example.targets()))
    changed = teacher["hidden_states"].detach().clone()
    changed[[layer for layer in states if layer not in named]] = torch.nan
    found = number(case.call(example, student, {**teacher, "hidden_states": changed}, example.targets()))
    expect(found == expected, f"teacher_layers({example.layers}) names {sorted(named)}, but others change the value")


def models_it_cannot_compare_are_a_plan_error(case: LossCase, example: BatchExample) -> None:
    other = example.config()
    other.num_hidden_layers, other.hidden_size, other.num_attention_heads = 3 * example.layers + 1, 7, 5
    try:
        case.registry.build(case.params).check_models(example.config(), other)
    except PlanError:
        return
    except Exception as error:
        raise AssertionError(f"check_models raises {type(error).__name__}: {error}; PlanError is expected") from error


def further_figures_are_of_the_teacher_alone(case: LossCase, example: BatchExample) -> None:
    """`metrics` of a loss in the fused pass goes to the log as it is."""
    loss, targets = case.build(example), example.targets()
    if not isinstance(loss, WeighsDivergences):
        return
    rows = TeacherRows(*(torch.rand(targets.labels.numel()) * sign for sign in (1.0, -1.0)))
    for name, figure in loss.metrics(rows, targets).items():
        expect(isinstance(figure, Tensor) and figure.shape == (), f"the figure {name} of metrics is no scalar tensor")
        expect(torch.isfinite(figure), f"the figure {name} of metrics is {figure.item()}")
        expect(not figure.requires_grad, f"the figure {name} of metrics is not detached")
