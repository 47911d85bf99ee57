"""Total variation distance of the next-token distributions."""

from edgerazor import DistillationLoss, LossOutput, Signal


class TotalVariation(DistillationLoss):
    """Half of sum |p - q| at every predicted position, then the reduction."""

    signals = frozenset({Signal.LOGITS})

    def __call__(self, student, teacher, targets):
        q, p = (self._probabilities(output.logits) for output in (student, teacher))
        distance = (p.detach() - q).abs().sum(dim=-1) / 2
        shares = targets.predictions.shares(self.params.reduction)  # 0 where the next label is masked
        value = (distance.where(shares > 0, 0.0) * shares).sum()
        return LossOutput(value * self.params.weight, shares={"distance": value.detach()})

    def _probabilities(self, logits):
        return (logits.float() / self.params.temperature).softmax(dim=-1)
