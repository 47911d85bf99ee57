"""What a distillation loss implements, and what losses may ask of a forward pass."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Set
from enum import Enum
from typing import TYPE_CHECKING, Any

from edgerazor.core.contracts.selector import LayerSelector
from edgerazor.schemas.components import LossParams

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgerazor.core.outputs import LossOutput, ModelOutput, Targets, TeacherRows


class Signal(Enum):
    """What a loss may ask of a forward pass; only what some loss asks for is computed."""

    LOGITS = "logits"
    HIDDEN_STATES = "hidden_states"
    ATTENTIONS = "attentions"
    KEYS = "keys"
    VALUES = "values"
    ROUTER_LOGITS = "router_logits"


class DistillationLoss(ABC):
    """One term of the total; its value holds `params.weight` and the reduction.

    Attributes:
        params: its parameters, `weight` among them.
        layers: the selector that chooses the layers it compares, if it compares layers; a selector that calibrates is
            settled before the first step.
        module: what it learns itself: trained with the student, saved with the optimizer, never exported.
        reads_labels: it needs a label of everything that is predicted.
    """

    reads_labels: bool = False
    params: Any
    layers: LayerSelector | None = None
    module: "nn.Module | None" = None

    def __init__(self, params: LossParams):
        self.params = params

    @property
    @abstractmethod
    def signals(self) -> Set[Signal]:
        """What it reads of the student's forward pass; only what some loss reads is computed."""

    @property
    def teacher_signals(self) -> Set[Signal]:
        """What it reads of the teacher's forward pass: the same, unless it says otherwise."""
        return self.signals

    @abstractmethod
    def __call__(self, student: "ModelOutput", teacher: "ModelOutput", targets: "Targets") -> "LossOutput":
        """The weighted loss of one batch, a scalar, with detached figures for the log."""

    def teacher_layers(self, layers: int) -> Collection[int] | None:
        """Indices of the hidden states that it reads of a teacher with that many decoder layers; None for any."""
        return None

    def check_models(self, student_config: Any, teacher_config: Any) -> None:
        """Raise PlanError if it cannot compare two models, by the configurations of their language models."""
        return


class WeighsDivergences(DistillationLoss):
    """A loss that is a weighted sum of forward and reverse KL per position.

    All of them that have one temperature are computed in one fused pass with the cross entropy, so that logits are
    never held as a whole. Calling one by itself must give the same value.
    """

    @property
    def temperature(self) -> float:
        """Logits of both models are divided by it; the divergences are multiplied by its square."""
        return float(self.params.temperature)

    @abstractmethod
    def divergence_weights(self, teacher_rows: "TeacherRows", targets: "Targets") -> "tuple[Tensor, Tensor]":
        """Factors of forward and reverse KL, `[N]` each over the flattened positions, weight and reduction included."""

    def metrics(self, teacher_rows: "TeacherRows", targets: "Targets") -> Mapping[str, "Tensor"]:
        """Further figures for the log, detached scalars that depend on the teacher alone."""
        return {}
