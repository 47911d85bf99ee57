"""Layer selectors with one fault each."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from edgerazor.core.contracts import CalibratedSelector, LayerSelector
from edgerazor.testing import selector as laws
from tests.testing.faults import law_of

States = tuple[Tensor, ...]


class Plain(LayerSelector):
    """Sound: shares after the mean magnitude of each hidden state."""

    def weights(self, hidden_states: States, mask: Tensor) -> Tensor:
        return self.shares(self.magnitudes(hidden_states, mask))

    def magnitudes(self, hidden_states: States, mask: Tensor) -> Tensor:
        means = [(state.float().abs().mean(dim=-1).where(mask, 0.0)).sum() for state in hidden_states]
        return (torch.stack(means) / mask.sum()).round(decimals=3)

    def shares(self, magnitudes: Tensor) -> Tensor:
        return magnitudes / magnitudes.sum()


@law_of(laws.there_is_one_weight_for_every_hidden_state)
class WithoutTheEmbedding(Plain):
    def weights(self, hidden_states: States, mask: Tensor) -> Tensor:
        return super().weights(hidden_states[1:], mask)


@law_of(laws.there_is_one_weight_for_every_hidden_state)
class GivingIndices(Plain):
    def weights(self, hidden_states: States, mask: Tensor) -> Tensor:
        return super().weights(hidden_states, mask).argsort()


@law_of(laws.weights_are_shares_of_one)
class OneForEveryLayer(Plain):
    def shares(self, magnitudes: Tensor) -> Tensor:
        return torch.ones_like(magnitudes)


@law_of(laws.the_same_states_give_the_same_weights)
class Drawing(Plain):
    def shares(self, magnitudes: Tensor) -> Tensor:
        return torch.rand_like(magnitudes).softmax(dim=0)


@law_of(laws.padding_does_not_matter)
class AveragingOverPadding(Plain):
    def magnitudes(self, hidden_states: States, mask: Tensor) -> Tensor:
        return torch.stack([state.float().abs().mean() for state in hidden_states])


@law_of(laws.nothing_is_read_back_from_the_device)
class ReadingTheLargest(Plain):
    def shares(self, magnitudes: Tensor) -> Tensor:
        return torch.eye(len(magnitudes), device=magnitudes.device)[int(magnitudes.argmax())]


@law_of(laws.nothing_is_read_back_from_the_device)
class StayingOnTheCPU(Plain):
    def weights(self, hidden_states: States, mask: Tensor) -> Tensor:
        return torch.full((len(hidden_states),), 1 / len(hidden_states))


class LastLayer(LayerSelector):
    """Sound: the last hidden state alone."""

    reads_states = False

    def fixed_layers(self, layers: int) -> list[int]:
        return [layers]

    def weights(self, hidden_states: States, mask: Tensor) -> Tensor:
        last = torch.arange(len(hidden_states), device=mask.device) == len(hidden_states) - 1
        return last.to(torch.float32)


@law_of(laws.fixed_layers_are_those_with_a_weight)
class NamingAnotherLayer(LastLayer):
    def fixed_layers(self, layers: int) -> list[int]:
        return [layers - 1]


@law_of(laws.nothing_below_its_lowest_layer_is_chosen)
class ChoosingTheEmbedding(Plain):
    lowest_layer = 1


@law_of(laws.a_depth_it_cannot_serve_is_a_plan_error)
class ComplainingInItsOwnWords(Plain):
    def check_layers(self, layers: int) -> None:
        if layers < 3:
            raise ValueError("too few layers")


@law_of(laws.calibration_settles_what_is_chosen)
class ForgettingWhatItSettled(CalibratedSelector):
    """Sound but for its memory: it chooses anew after it has settled."""

    def __init__(self, params: Any):
        super().__init__(params)
        self._settled: list[int] | None = None

    calibration_batches = 1

    @property
    def settled(self) -> list[int] | None:
        return self._settled

    def observe(self, hidden_states: States, mask: Tensor) -> None:
        self._observed = len(hidden_states) - 1

    def settle(self, layers: Sequence[int] | None = None) -> list[int]:
        self._settled = list(layers or [self._observed])
        return self._settled

    def weights(self, hidden_states: States, mask: Tensor) -> Tensor:
        return LastLayer(self.params).weights(hidden_states, mask)
