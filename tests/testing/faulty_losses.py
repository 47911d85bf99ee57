"""Losses with one fault each."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from edgerazor.core.contracts import DistillationLoss, Signal
from edgerazor.core.outputs import LossOutput, ModelOutput, Targets, TeacherRows
from edgerazor.plugins.losses.kl import ReverseKL
from edgerazor.testing import loss as laws
from tests.testing.faults import law_of


class Plain(DistillationLoss):
    """Sound: the mean squared difference of logits."""

    signals: ClassVar = frozenset({Signal.LOGITS})

    def __call__(self, student: ModelOutput, teacher: ModelOutput, targets: Targets) -> LossOutput:
        distances = self.distances(student.logits, teacher.logits.detach())
        shares = self.shares(targets)
        value = (distances * shares).sum()
        return LossOutput(value * self.params.weight, {}, {"distance": value.detach()})

    def distances(self, ours: Tensor, theirs: Tensor) -> Tensor:
        return (ours.float() - theirs.float()).square().mean(dim=-1)

    def shares(self, targets: Targets) -> Tensor:
        return targets.predictions.shares("token_mean")


@law_of(laws.the_declared_signals_are_enough)
class ReadingMoreThanItSays(Plain):
    def __call__(self, student: ModelOutput, teacher: ModelOutput, targets: Targets) -> LossOutput:
        states = student.hidden_states[1] - teacher.hidden_states[1].detach()  # type: ignore[index]
        return LossOutput((states.square().mean(dim=-1) * targets.tokens.shares("token_mean")).sum())


@law_of(laws.the_declared_signals_are_enough)
class NamingSignalsByText(Plain):
    signals: ClassVar = frozenset({"logits"})


@law_of(laws.the_value_is_a_finite_scalar)
class OneValueForEverySequence(Plain):
    def __call__(self, student: ModelOutput, teacher: ModelOutput, targets: Targets) -> LossOutput:
        distances = self.distances(student.logits, teacher.logits.detach())
        return LossOutput((distances * self.shares(targets)).sum(dim=-1))


@law_of(laws.the_value_is_a_finite_scalar)
class Overflowing(Plain):
    def distances(self, ours: Tensor, theirs: Tensor) -> Tensor:
        return (ours.float().exp() - theirs.float().exp()).square().mean(dim=-1)


@law_of(laws.the_value_is_a_finite_scalar)
class InTheDtypeOfTheModel(Plain):
    def shares(self, targets: Targets) -> Tensor:
        return super().shares(targets).bfloat16()

    def distances(self, ours: Tensor, theirs: Tensor) -> Tensor:
        return (ours - theirs).square().mean(dim=-1)


@law_of(laws.the_same_batch_gives_the_same_value)
class Sampling(Plain):
    def distances(self, ours: Tensor, theirs: Tensor) -> Tensor:
        return super().distances(ours, theirs) * torch.rand(())


@law_of(laws.the_same_batch_gives_the_same_value)
class WritingOnTheTeacher(Plain):
    def __call__(self, student: ModelOutput, teacher: ModelOutput, targets: Targets) -> LossOutput:
        teacher.final_hidden.data.clamp_(-1, 1)  # type: ignore[union-attr]
        return super().__call__(student, teacher, targets)


@law_of(laws.the_gradient_reaches_the_student_alone)
class TeachingNobody(Plain):
    def distances(self, ours: Tensor, theirs: Tensor) -> Tensor:
        return super().distances(ours.detach(), theirs)


@law_of(laws.the_gradient_reaches_the_student_alone)
class TeachingTheTeacher(Plain):
    def __call__(self, student: ModelOutput, teacher: ModelOutput, targets: Targets) -> LossOutput:
        return LossOutput((self.distances(student.logits, teacher.logits) * self.shares(targets)).sum())


@law_of(laws.the_weight_is_a_factor)
class WithoutItsWeight(Plain):
    def __call__(self, student: ModelOutput, teacher: ModelOutput, targets: Targets) -> LossOutput:
        distances = self.distances(student.logits, teacher.logits.detach())
        return LossOutput((distances * self.shares(targets)).sum())


@law_of(laws.what_has_no_label_does_not_matter)
class AtTheLabelInsteadOfBeforeIt(Plain):
    def shares(self, targets: Targets) -> Tensor:
        return targets.tokens.shares("token_mean")


@law_of(laws.what_has_no_label_does_not_matter)
class ComparingAllStates(Plain):
    signals: ClassVar = frozenset({Signal.HIDDEN_STATES})

    def __call__(self, student: ModelOutput, teacher: ModelOutput, targets: Targets) -> LossOutput:
        assert student.hidden_states is not None and teacher.hidden_states is not None
        distances = self.distances(student.hidden_states[-1], teacher.hidden_states[-1].detach())
        shares = targets.attention.shares("token_mean")
        return LossOutput((distances * shares).sum() * self.params.weight)


@law_of(laws.padding_does_not_matter)
class DividingByTheLengthOfTheBatch(Plain):
    def shares(self, targets: Targets) -> Tensor:
        return targets.predictions.shares("sum") / targets.labels.numel()


@law_of(laws.padding_does_not_matter)
class CentringOverPadding(Plain):
    def distances(self, ours: Tensor, theirs: Tensor) -> Tensor:
        return super().distances(ours, theirs - theirs.mean(dim=1, keepdim=True))


@law_of(laws.a_batch_without_labels_gives_zero)
class DividingByNothing(Plain):
    def shares(self, targets: Targets) -> Tensor:
        return targets.predictions.mask / targets.predictions.positions


@law_of(laws.micro_batches_add_up_to_the_step)
class MeanOverTheMicroBatch(Plain):
    def shares(self, targets: Targets) -> Tensor:
        return targets.predictions.mask / targets.predictions.mask.sum().clamp(min=1)


@law_of(laws.figures_are_detached_scalars)
class WithAFigureThatHoldsTheGraph(Plain):
    def __call__(self, student: ModelOutput, teacher: ModelOutput, targets: Targets) -> LossOutput:
        value = super().__call__(student, teacher, targets).value
        return LossOutput(value, {"distance": value})


@law_of(laws.figures_are_detached_scalars)
class WithANumberForAFigure(Plain):
    def __call__(self, student: ModelOutput, teacher: ModelOutput, targets: Targets) -> LossOutput:
        value = super().__call__(student, teacher, targets).value
        return LossOutput(value, {"distance": float(value.detach())})  # type: ignore[dict-item]


@law_of(laws.names_of_figures_do_not_depend_on_the_batch)
class WithAFigureForEverySequence(Plain):
    def __call__(self, student: ModelOutput, teacher: ModelOutput, targets: Targets) -> LossOutput:
        live = targets.predictions.mask.any(dim=-1).nonzero().flatten().tolist()
        value = super().__call__(student, teacher, targets).value
        return LossOutput(value, {f"sequence_{row}": value.detach() for row in live})


@law_of(laws.a_student_like_its_teacher_has_the_least_loss)
class PullingTowardsHalf(Plain):
    def distances(self, ours: Tensor, theirs: Tensor) -> Tensor:
        return super().distances(ours, theirs / 2)


@law_of(laws.divergence_weights_give_what_the_call_gives)
class WithWeightsOfAnotherLoss(ReverseKL):
    def divergence_weights(self, teacher_rows: TeacherRows, targets: Targets) -> tuple[Tensor, Tensor]:
        forward, reverse = super().divergence_weights(teacher_rows, targets)
        return reverse, forward

    def __call__(self, student: ModelOutput, teacher: ModelOutput, targets: Targets) -> LossOutput:
        return ReverseKL(self.params)(student, teacher, targets)


@law_of(laws.further_figures_are_of_the_teacher_alone)
class WithAFigureForEveryPosition(ReverseKL):
    def metrics(self, teacher_rows: TeacherRows, targets: Targets) -> dict[str, Tensor]:
        return {"entropy": teacher_rows.entropy}

    def __call__(self, student: ModelOutput, teacher: ModelOutput, targets: Targets) -> LossOutput:
        return ReverseKL(self.params)(student, teacher, targets)


@law_of(laws.only_the_named_teacher_layers_are_read)
class ReadingTheLayerBelow(Plain):
    signals: ClassVar = frozenset({Signal.HIDDEN_STATES})

    def teacher_layers(self, layers: int) -> list[int]:
        return [layers]

    def __call__(self, student: ModelOutput, teacher: ModelOutput, targets: Targets) -> LossOutput:
        assert student.hidden_states is not None and teacher.hidden_states is not None
        distances = self.distances(student.hidden_states[-2], teacher.hidden_states[-2].detach())
        shares = targets.tokens.shares("token_mean")
        value = (distances.where(shares > 0, 0.0) * shares).sum()
        return LossOutput(value * self.params.weight)


@law_of(laws.models_it_cannot_compare_are_a_plan_error)
class ComplainingInItsOwnWords(Plain):
    def check_models(self, student_config: Any, teacher_config: Any) -> None:
        if student_config.hidden_size != teacher_config.hidden_size:
            raise ValueError("widths differ")
