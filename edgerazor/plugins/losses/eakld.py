"""`eakld` and `cakld`: reverse KL where the teacher is sure, forward KL where it is not (METHOD 4.3)."""

from abc import abstractmethod

import torch
from torch import Tensor

from edgerazor.core.outputs import Targets, TeacherRows
from edgerazor.plugins.losses.confidence import entropy_confidence, mean_confidence
from edgerazor.plugins.losses.kl import Divergence
from edgerazor.plugins.losses.params import CAKLDParams, EAKLDParams


class Balanced(Divergence):
    """gamma * reverse_kl + (1 - gamma) * forward_kl; subclasses say how sure the teacher is."""

    params: EAKLDParams | CAKLDParams

    @abstractmethod
    def confidence(self, teacher_rows: TeacherRows) -> Tensor:
        """Confidence of every position, `[N]`; gamma is its mean over the scope, clamped to 0 and 1."""

    def divergence_weights(self, teacher_rows: TeacherRows, targets: Targets) -> tuple[Tensor, Tensor]:
        shares, gamma = self._shares(targets), self.gamma(teacher_rows, targets).flatten()
        return shares * (1 - gamma), shares * gamma

    def metrics(self, teacher_rows: TeacherRows, targets: Targets) -> dict[str, Tensor]:
        mask = targets.predictions.mask
        count = mask.sum().clamp(min=1)
        gamma, entropy = self.gamma(teacher_rows, targets), teacher_rows.entropy.view(mask.shape)
        return {"gamma": (gamma * mask).sum() / count, "teacher_entropy": (entropy * mask).sum() / count}

    @torch.no_grad()
    def gamma(self, teacher_rows: TeacherRows, targets: Targets) -> Tensor:
        """float32 `[batch, seq]`: the factor of the reverse KL; meaningful at predicted positions."""
        mask = targets.predictions.mask
        return mean_confidence(self.confidence(teacher_rows).view(mask.shape), mask, self.params.scope)


class EAKLD(Balanced):
    """Confidence 1 - entropy / log uniform_support."""

    params: EAKLDParams

    def confidence(self, teacher_rows: TeacherRows) -> Tensor:
        return entropy_confidence(teacher_rows.entropy, self.params.uniform_support, cap=self.params.entropy_cap)


class CAKLD(Balanced):
    """Confidence is the probability that the teacher gives to the label."""

    reads_labels = True
    params: CAKLDParams

    def confidence(self, teacher_rows: TeacherRows) -> Tensor:
        return teacher_rows.label_log_probability.exp()
