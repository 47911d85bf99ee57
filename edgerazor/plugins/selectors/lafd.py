"""`lafd`: layers picked by the cosine similarity of adjacent hidden states of the teacher (METHOD 4.5)."""

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from edgerazor.errors import PlanError
from edgerazor.plugins.selectors.params import LAFDParams


class LAFD:
    """The `top_k` layers least similar to their predecessor, each with weight 1/top_k; ties go to the lower index."""

    def __init__(self, params: LAFDParams):
        self.params = params

    def check_layers(self, layers: int) -> None:
        """Raise PlanError if a model of `layers` decoder layers has too few."""
        if self.params.top_k > layers:
            raise PlanError(f"lafd: top_k is {self.params.top_k}, but the teacher has {layers} layers")

    @torch.no_grad()
    def weights(self, hidden_states: tuple[Tensor, ...], mask: Tensor) -> Tensor:
        """float32 `[L+1]` from L+1 states `[batch, seq, hidden]` and the bool mask `[batch, seq]` of real tokens."""
        self.check_layers(len(hidden_states) - 1)
        similarities = torch.stack(
            [_mean_cosine(current, previous, mask) for previous, current in pairwise(hidden_states)]
        )
        order = torch.sort(similarities, stable=True).indices[: self.params.top_k]
        chosen = torch.zeros(len(hidden_states), dtype=torch.float32, device=mask.device)
        return chosen.index_fill_(0, order + 1, 1.0 / self.params.top_k)


def _mean_cosine(current: Tensor, previous: Tensor, mask: Tensor) -> Tensor:
    cosine = functional.cosine_similarity(current.float(), previous.float(), dim=-1)
    return (cosine * mask).sum() / mask.sum().clamp(min=1)
