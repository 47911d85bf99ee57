"""`attention_relation` and `key_value_relation`: who looks at whom, and who is like whom (METHOD 4.6)."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from edgerazor.core.contracts import LayerSelector, Signal
from edgerazor.core.outputs import ModelOutput, Targets
from edgerazor.errors import PlanError
from edgerazor.plugins.losses.confidence import entropy_confidence, mean_confidence
from edgerazor.plugins.losses.layerwise import LayerwiseLoss, Pair
from edgerazor.plugins.losses.params import AttentionRelationParams, KeyValueRelationParams, RelationParams

SMALLEST = torch.finfo(torch.float32).tiny


class RelationLoss(LayerwiseLoss):
    """Divergence of rows of probabilities `[batch, heads, seq, seq]`, averaged over heads."""

    params: RelationParams
    lowest_layer: ClassVar = 1
    heads: ClassVar[str]

    def check_models(self, student: Any, teacher: Any) -> None:
        """Also compare the numbers of heads.

        Raises:
            PlanError: as in the base class, or the teacher's heads cannot be averaged to the student's number.
        """
        super().check_models(student, teacher)
        ours, theirs = getattr(student, self.heads), getattr(teacher, self.heads)
        if theirs % ours:
            raise PlanError(
                f"{self.params.name}: {self.heads} is {ours} in the student and {theirs} in the teacher; consecutive "
                "heads of the teacher are averaged, so its number must be a multiple of the student's"
            )

    def divergence(self, ours: Tensor, theirs: Tensor, targets: Targets) -> Tensor:
        """`[batch, seq]` of probabilities of student and teacher, the latter with as many heads or a multiple."""
        ours, theirs = (rows if rows.dtype == torch.float64 else rows.float() for rows in (ours, theirs.detach()))
        theirs = theirs.unflatten(1, (ours.shape[1], -1)).mean(dim=2)
        log_ours, log_theirs = ours.clamp(min=SMALLEST).log(), theirs.clamp(min=SMALLEST).log()
        forward = (theirs * (log_theirs - log_ours)).sum(dim=-1).mean(dim=1)
        if self.params.divergence == "forward_kl":
            return forward
        reverse = (ours * (log_ours - log_theirs)).sum(dim=-1).mean(dim=1)
        if self.params.divergence == "reverse_kl":
            return reverse
        mask = targets.tokens.mask
        entropy = -(theirs * log_theirs).sum(dim=-1).mean(dim=1)
        confidence = entropy_confidence(entropy, self.params.uniform_support).where(mask, 0.0)
        gamma = mean_confidence(confidence, mask, self.params.scope)
        return gamma * reverse + (1 - gamma) * forward


class AttentionRelation(RelationLoss):
    """Layer l compares the attention probabilities of decoder layer l."""

    params: AttentionRelationParams
    compared: ClassVar = frozenset({Signal.ATTENTIONS})
    heads: ClassVar = "num_attention_heads"

    def values(self, student: ModelOutput, teacher: ModelOutput, pair: Pair, targets: Targets) -> Tensor:
        assert student.attentions is not None and teacher.attentions is not None
        return self.divergence(student.attentions[pair.student - 1], teacher.attentions[pair.teacher - 1], targets)

    def _depth(self, output: ModelOutput) -> int:
        assert output.attentions is not None
        return len(output.attentions)


class KeyValueRelation(RelationLoss):
    """softmax(X X^T / sqrt(head_dim)) over all positions that are not padding; X are keys or values of a layer."""

    params: KeyValueRelationParams
    heads: ClassVar = "num_key_value_heads"

    def __init__(self, params: KeyValueRelationParams, layers: LayerSelector):
        super().__init__(params, layers)
        both = (Signal.KEYS, Signal.VALUES)
        self.components = both if params.component == "both" else (Signal(f"{params.component}s"),)

    @property
    def compared(self) -> frozenset[Signal]:  # type: ignore[override]
        return frozenset(self.components)

    def values(self, student: ModelOutput, teacher: ModelOutput, pair: Pair, targets: Targets) -> Tensor:
        parts = []
        for component in self.components:
            ours = getattr(student, component.value)[pair.student - 1]
            theirs = getattr(teacher, component.value)[pair.teacher - 1]
            mask = targets.attention.mask
            parts.append(self.divergence(_relation(ours, mask), _relation(theirs.detach(), mask), targets))
        return torch.stack(parts).mean(dim=0)

    def _depth(self, output: ModelOutput) -> int:
        return len(getattr(output, self.components[0].value))


def _relation(states: Tensor, mask: Tensor) -> Tensor:
    """`[batch, heads, seq, seq]` of `[batch, heads, seq, head_dim]`; 0 where a key is padding."""
    states = states if states.dtype == torch.float64 else states.float()
    with torch.autocast(states.device.type, enabled=False):
        scores = states @ states.transpose(-1, -2) / math.sqrt(states.shape[-1])
    allowed = mask[:, None, None, :]
    # A finite floor: a row without any allowed key must not become NaN, not even in the backward pass.
    scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1).masked_fill(~allowed, 0.0)
