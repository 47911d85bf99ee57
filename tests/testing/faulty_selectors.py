"""Layer selectors with one fault each."""

from typing import Any

import torch
from torch import Tensor

from edgerazor.testing import selector as laws
from tests.testing.faults import law_of

States = tuple[Tensor, ...]


class Plain:
    """Sound: shares after the mean magnitude of each hidden state."""

    def __init__(self, params: Any):
        self.params = params

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
