"""A loss that reads logits, the simplest way to write one."""

from edgerazor.core.contracts import Signal
from edgerazor.core.outputs import LossOutput


class L1:
    signals = frozenset({Signal.LOGITS})

    def __init__(self, params):
        self.params = params

    def __call__(self, student, teacher, targets):
        shares = targets.predictions.shares("token_mean")
        difference = (student.logits - teacher.logits).abs().mean(dim=-1)
        return LossOutput((shares * difference).sum())
