"""`eakld`: reverse KL where the teacher is sure, forward KL where it is not (METHOD 4.3; paper arXiv:2605.04062)."""

import math

import torch
from torch import Tensor

from edgerazor.core.outputs import Targets, TeacherRows
from edgerazor.plugins.losses.kl import Divergence
from edgerazor.plugins.losses.params import EAKLDParams


class EAKLD(Divergence):
    """gamma * reverse_kl + (1 - gamma) * forward_kl, gamma = clamp(1 - mean entropy / log uniform_support, 0, 1)."""

    params: EAKLDParams

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
        no_confidence = math.log(self.params.uniform_support)
        entropy = teacher_rows.entropy.view(mask.shape)
        if self.params.entropy_cap:
            entropy = entropy.clamp(max=no_confidence)
        if self.params.scope != "token":
            lengths = mask.sum(dim=-1, keepdim=True)
            entropy = (entropy * mask).sum(dim=-1, keepdim=True) / lengths.clamp(min=1)
            if self.params.scope == "batch":
                live = lengths > 0
                entropy = (entropy * live).sum() / live.sum().clamp(min=1)
        return (1 - entropy / no_confidence).clamp(0, 1).expand(mask.shape)
