"""What a distillation loss implements, and what losses may ask of a forward pass."""

from collections.abc import Set
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from edgerazor.core.outputs import LossOutput, ModelOutput, Targets
    from edgerazor.schemas.components import LossParams


class Signal(Enum):
    """What a loss may ask of a forward pass; only what some loss asks for is computed."""

    LOGITS = "logits"
    HIDDEN_STATES = "hidden_states"
    ATTENTIONS = "attentions"
    KEYS = "keys"
    VALUES = "values"
    ROUTER_LOGITS = "router_logits"


class DistillationLoss(Protocol):
    """One term of the total; its value holds `params.weight` and the reduction.

    What it may have besides:

    - `divergence_weights(teacher_rows, targets) -> (forward [N], reverse [N])`, weight and reduction included, if it is
      a weighted sum of forward and reverse KL per position; it is then computed with all others of its temperature in
      one fused pass;
    - `teacher_signals`, if it needs other signals of the teacher than of the student;
    - `teacher_layers(layers)`, the only hidden states it reads of a teacher with that many layers, or None for any;
    - `check_models(student_config, teacher_config)`, which raises PlanError for models it cannot compare;
    - `module`, an `nn.Module` that is trained with the student, saved with the optimizer and never exported.
    """

    params: "LossParams"
    signals: Set[Signal]

    def __call__(self, student: "ModelOutput", teacher: "ModelOutput", targets: "Targets") -> "LossOutput": ...


def teacher_signals(loss: DistillationLoss) -> Set[Signal]:
    """What a loss reads of the teacher: what it says, or the same as of the student."""
    found: Set[Signal] = getattr(loss, "teacher_signals", loss.signals)
    return found
