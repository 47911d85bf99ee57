"""What a layer selector implements."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgerazor.schemas.components import SelectorParams

if TYPE_CHECKING:
    from torch import Tensor


class LayerSelector(ABC):
    """Chooses which of a teacher's hidden states are compared: 0 is the embedding output, l the state after layer l.

    Attributes:
        params: its parameters.
        reads_states: True if the choice depends on the batch; if it does not, `fixed_layers` says what it is, and only
            those states are computed.
        lowest_layer: it never chooses a lower index.
    """

    params: Any
    lowest_layer: int = 0

    def __init__(self, params: SelectorParams):
        self.params = params

    @property
    def reads_states(self) -> bool:
        return True

    @abstractmethod
    def weights(self, hidden_states: tuple["Tensor", ...], mask: "Tensor") -> "Tensor":
        """Shares of the hidden states, float32 `[L+1]` on the device of `mask`, sum 1; zero: not compared.

        Args:
            hidden_states: L+1 tensors `[batch, seq, hidden]` of the teacher.
            mask: bool `[batch, seq]`, False at padding.
        """

    def fixed_layers(self, layers: int) -> list[int]:
        """Ascending distinct indices for a teacher of that many decoder layers; called if `reads_states` is False."""
        raise NotImplementedError(f"{type(self).__name__} says reads_states = False; it must say fixed_layers too")

    def check_layers(self, layers: int) -> None:
        """Raise PlanError if it cannot choose among the states of a teacher of that many decoder layers."""
        return


class CalibratedSelector(LayerSelector):
    """A selector that may look at some batches before the first step and keep to one choice from then on."""

    @property
    @abstractmethod
    def calibration_batches(self) -> int:
        """How many batches `observe` wants before the first step; 0 if none, or if the layers are settled."""

    @property
    @abstractmethod
    def settled(self) -> list[int] | None:
        """The layers that were fixed, ascending; None while they are chosen anew for every batch."""

    @abstractmethod
    def observe(self, hidden_states: tuple["Tensor", ...], mask: "Tensor") -> None:
        """Take one batch of the teacher's states into account; arguments as for `weights`."""

    @abstractmethod
    def settle(self, layers: Sequence[int] | None = None) -> list[int]:
        """Fix the layers: those given, as a resumed run does, or the ones that the observed batches choose.

        Raises:
            PlanError: nothing was observed.
        """
