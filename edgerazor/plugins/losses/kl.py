"""Divergences of logits as weights of forward and reverse KL per position (METHOD 4.2)."""

from typing import ClassVar

from torch import Tensor

from edgerazor.core.contracts import Signal, WeighsDivergences
from edgerazor.core.outputs import LossOutput, ModelOutput, Targets, TeacherRows
from edgerazor.kernels.divergence import RowStatistics, RowWeights
from edgerazor.kernels.fused_linear import logits_distillation, logits_teacher_statistics
from edgerazor.plugins.losses.params import DivergenceParams, ForwardKLParams, ReverseKLParams


class Divergence(WeighsDivergences):
    """A loss that is a weighted sum of forward and reverse KL per position.

    In training all of them share one fused pass from hidden states; calling one by itself computes it from logits.
    """

    signals: ClassVar = frozenset({Signal.LOGITS})

    params: DivergenceParams

    def __call__(self, student: ModelOutput, teacher: ModelOutput, targets: Targets) -> LossOutput:
        """The weighted loss from logits `[batch, seq, vocab]`."""
        z, u = student.logits.flatten(0, -2), teacher.logits.detach().flatten(0, -2)
        labels = targets.next_labels().flatten()
        rows = TeacherRows(*logits_teacher_statistics(u, labels))
        forward, reverse = self.divergence_weights(rows, targets)
        value, statistics = logits_distillation(
            z,
            u,
            labels,
            RowWeights(forward, reverse, forward.new_zeros(forward.shape)),
            temperature=self.temperature,
        )
        return LossOutput(value, {**self.metrics(rows, targets), **mean_divergences(statistics, targets)})

    def _shares(self, targets: Targets) -> Tensor:
        return targets.predictions.shares(self.params.reduction).flatten() * self.params.weight


class ForwardKL(Divergence):
    """KL(teacher, student) times T²: the student must cover what the teacher finds possible."""

    params: ForwardKLParams

    def divergence_weights(self, teacher_rows: TeacherRows, targets: Targets) -> tuple[Tensor, Tensor]:
        shares = self._shares(targets)
        return shares, shares.new_zeros(shares.shape)


class ReverseKL(Divergence):
    """KL(student, teacher) times T²: the student must not claim what the teacher finds impossible."""

    params: ReverseKLParams

    def divergence_weights(self, teacher_rows: TeacherRows, targets: Targets) -> tuple[Tensor, Tensor]:
        shares = self._shares(targets)
        return shares.new_zeros(shares.shape), shares


def mean_divergences(statistics: RowStatistics, targets: Targets) -> dict[str, Tensor]:
    """Mean forward and reverse KL over the predicted positions of this batch, detached."""
    mask = targets.predictions.mask.flatten()
    count = mask.sum().clamp(min=1)
    return {
        "forward_kl": (statistics.forward_kl.detach() * mask).sum() / count,
        "reverse_kl": (statistics.reverse_kl.detach() * mask).sum() / count,
    }
