"""`router_z`: logits of the routers of a mixture of experts stay small (METHOD 4.6)."""

from typing import ClassVar

import torch
from torch import Tensor

from edgerazor.core.contracts import DistillationLoss, Signal
from edgerazor.core.outputs import LossOutput, ModelOutput, Targets
from edgerazor.plugins.losses.params import RouterZParams


class RouterZ(DistillationLoss):
    """Mean over layers and non-padding tokens of logsumexp(router logits)²; the teacher has no part in it."""

    signals: ClassVar = frozenset({Signal.ROUTER_LOGITS})
    teacher_signals: ClassVar = frozenset[Signal]()

    params: RouterZParams

    def __call__(self, student: ModelOutput, teacher: ModelOutput, targets: Targets) -> LossOutput:
        assert student.router_logits is not None
        shares = targets.attention.shares("token_mean").flatten()
        per_layer = [(_squares(logits).where(shares > 0, 0.0) * shares).sum() for logits in student.router_logits]
        value = torch.stack(per_layer).mean()
        return LossOutput(value * self.params.weight, shares={"mean_square": value.detach()})


def _squares(logits: Tensor) -> Tensor:
    """`[tokens]` of `[tokens, experts]`."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits.logsumexp(dim=-1).square()
