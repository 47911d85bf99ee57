"""What a layer selector implements."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class LayerSelector(Protocol):
    """Chooses hidden states: weights `[L+1]` on the device that sum to 1; zero means not compared.

    What it may have besides:

    - `reads_states`, False if the choice does not depend on the batch; `fixed_layers(layers)` then gives the ascending
      indices for a teacher of that many decoder layers, and only those are computed;
    - `lowest_layer`, below which it never chooses (0 if it does not say);
    - `check_layers(layers)`, which raises PlanError for a depth it cannot serve;
    - `calibration_batches`, how many batches it wants to `observe(hidden_states, mask)` before the first step, after
      which `settle(layers=None)` fixes its layers, `settled`; a resumed run gives them back.
    """

    def weights(self, hidden_states: tuple["Tensor", ...], mask: "Tensor") -> "Tensor": ...
