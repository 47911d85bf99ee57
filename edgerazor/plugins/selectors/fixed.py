"""`fixed` and `all`: layers that do not depend on the batch (METHOD 4.5)."""

from abc import abstractmethod

import torch
from torch import Tensor

from edgerazor.core.contracts import LayerSelector
from edgerazor.errors import PlanError
from edgerazor.plugins.selectors.params import AllParams, FixedParams


class FixedLayers(LayerSelector):
    """Equal weights on layers that follow from the depth alone."""

    reads_states = False

    @abstractmethod
    def fixed_layers(self, layers: int) -> list[int]:
        """Ascending distinct indices into the L+1 hidden states of a model of `layers` decoder layers."""

    def check_layers(self, layers: int) -> None:
        """Raise PlanError if an index is outside a model of `layers` decoder layers."""
        self.fixed_layers(layers)

    def weights(self, hidden_states: tuple[Tensor, ...], mask: Tensor) -> Tensor:
        """float32 `[L+1]`."""
        return equal_weights(self.fixed_layers(len(hidden_states) - 1), len(hidden_states)).to(mask.device)


class Fixed(FixedLayers):
    """The layers of the recipe; an index out of range is an error."""

    params: FixedParams

    def fixed_layers(self, layers: int) -> list[int]:
        named = {"low": min(1, layers), "mid": (layers + 1) // 2, "high": layers}
        found = set()
        for layer in self.params.layers:
            index = named[layer] if isinstance(layer, str) else layer
            if not -layers - 1 <= index <= layers:
                raise PlanError(f"fixed: layer {layer} is out of range; the model has hidden states 0 to {layers}")
            found.add(index % (layers + 1))
        return sorted(found)


class All(FixedLayers):
    """Every decoder layer."""

    params: AllParams

    def fixed_layers(self, layers: int) -> list[int]:
        return list(range(1, layers + 1))


def equal_weights(chosen: list[int], states: int) -> Tensor:
    """float32 `[states]` on the CPU: equal shares of 1 on the chosen ones."""
    weights = torch.zeros(states, dtype=torch.float32)
    weights[chosen] = 1.0 / len(chosen)
    return weights
