"""`jsd`: teacher and student each compared with their mixture (METHOD 4.2)."""

from typing import ClassVar

from torch import Tensor

from edgerazor.core.contracts import DistillationLoss, Signal
from edgerazor.core.outputs import LossOutput, ModelOutput, Targets
from edgerazor.kernels.fused_linear import TeacherLogits
from edgerazor.kernels.jensen_shannon import fused_jensen_shannon, jensen_shannon
from edgerazor.kernels.projection import chunk_rows
from edgerazor.plugins.losses.params import JSDParams


class JSD(DistillationLoss):
    """T² (beta KL(teacher, mixture) + (1 - beta) KL(student, mixture)).

    It is no weighted sum of forward and reverse KL, so it has a pass of its own over the head, chunk by chunk too.
    """

    signals: ClassVar = frozenset({Signal.LOGITS})

    params: JSDParams

    def __call__(self, student: ModelOutput, teacher: ModelOutput, targets: Targets) -> LossOutput:
        mask = targets.predictions.mask.flatten()
        factors = targets.predictions.shares(self.params.reduction).flatten() * self.params.weight
        value, rows = self._divergence(student, teacher, factors)
        mean = (rows.where(mask, 0.0)).sum() / mask.sum().clamp(min=1)
        return LossOutput(value, {"divergence": mean})

    def _divergence(self, student: ModelOutput, teacher: ModelOutput, factors: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted sum, and the divergence of every position `[N]`."""
        beta, temperature = self.params.beta, self.params.temperature
        heads = student.head, teacher.head
        if heads[0] is None or heads[1] is None or student.final_hidden is None or teacher.final_hidden is None:
            z, u = student.logits.flatten(0, -2), teacher.logits.detach().flatten(0, -2)
            return jensen_shannon(z, u, factors, beta=beta, temperature=temperature)
        ours = heads[0].projection(student.final_hidden, slice(None), autocast=True)
        theirs = heads[1].projection(teacher.final_hidden, slice(None), autocast=False)
        source = TeacherLogits(theirs, chunk_rows(len(factors), len(ours.weight), factors.device), keep_bytes=0)
        return fused_jensen_shannon(ours, source, factors, beta=beta, temperature=temperature)
