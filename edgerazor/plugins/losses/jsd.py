"""`jsd`: teacher and student each compared with their mixture (METHOD 4.2)."""

from typing import ClassVar

from edgerazor.core.contracts import Signal
from edgerazor.core.outputs import LossOutput, ModelOutput, Targets
from edgerazor.kernels.jensen_shannon import jensen_shannon
from edgerazor.plugins.losses.params import JSDParams


class JSD:
    """T² (beta KL(teacher, mixture) + (1 - beta) KL(student, mixture)).

    It is no weighted sum of forward and reverse KL, so it has a pass of its own, over logits that exist whole.
    """

    signals: ClassVar = frozenset({Signal.LOGITS})

    def __init__(self, params: JSDParams):
        self.params = params

    def __call__(self, student: ModelOutput, teacher: ModelOutput, targets: Targets) -> LossOutput:
        mask = targets.predictions.mask.flatten()
        factors = targets.predictions.shares(self.params.reduction).flatten() * self.params.weight
        value, rows = jensen_shannon(
            student.logits.flatten(0, -2),
            teacher.logits.detach().flatten(0, -2),
            factors,
            beta=self.params.beta,
            temperature=self.params.temperature,
        )
        mean = (rows * mask).sum() / mask.sum().clamp(min=1)
        return LossOutput(value, {"divergence": mean})
