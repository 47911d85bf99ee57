"""`fixed`: layers by index or by the names low, mid and high (METHOD 4.5)."""

import torch
from torch import Tensor

from edgerazor.errors import PlanError
from edgerazor.plugins.selectors.params import FixedParams


class Fixed:
    """Equal weights on distinct layers; an index out of range is an error."""

    def __init__(self, params: FixedParams):
        self.params = params

    def check_layers(self, layers: int) -> None:
        """Raise PlanError if an index is outside a model of `layers` decoder layers."""
        self.indices(layers)

    def indices(self, layers: int) -> list[int]:
        """Ascending distinct indices into the L+1 hidden states of a model of `layers` decoder layers."""
        named = {"low": min(1, layers), "mid": (layers + 1) // 2, "high": layers}
        found = set()
        for layer in self.params.layers:
            index = named[layer] if isinstance(layer, str) else layer
            if not -layers - 1 <= index <= layers:
                raise PlanError(f"fixed: layer {layer} is out of range; the model has hidden states 0 to {layers}")
            found.add(index % (layers + 1))
        return sorted(found)

    def weights(self, hidden_states: tuple[Tensor, ...], mask: Tensor) -> Tensor:
        """float32 `[L+1]`."""
        indices = self.indices(len(hidden_states) - 1)
        weights = torch.zeros(len(hidden_states), dtype=torch.float32)
        weights[indices] = 1.0 / len(indices)
        return weights.to(mask.device)
