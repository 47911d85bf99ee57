"""`lafd`: layers picked by what the teacher's hidden states do there (METHOD 4.5; arXiv:2605.04062)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from edgerazor.core.contracts import CalibratedSelector
from edgerazor.errors import PlanError
from edgerazor.kernels import dispatch
from edgerazor.plugins.selectors.fixed import equal_weights
from edgerazor.plugins.selectors.params import LAFDParams

CALIBRATION_BATCHES = 8


class LAFD(CalibratedSelector):
    """The `top_k` layers with the lowest score, each with weight 1/top_k; ties go to the lower index.

    The score is the cosine to the layer below, or minus the norm, or minus the variance. With `refresh: calibration`
    scores are averaged over the batches given to `observe`, until `settle` fixes the layers.

    Attributes:
        lowest_layer: the embedding output is never chosen.
    """

    params: LAFDParams
    lowest_layer = 1

    def __init__(self, params: LAFDParams):
        super().__init__(params)
        self._settled: list[int] | None = None
        self._observed: list[Tensor] = []

    @property
    def settled(self) -> list[int] | None:
        """The fixed layers, ascending; None while they are chosen anew in every forward pass."""
        return self._settled

    @property
    def reads_states(self) -> bool:
        """Whether the choice still depends on hidden states."""
        return self.settled is None

    @property
    def calibration_batches(self) -> int:
        """How many batches `observe` wants before the first step; 0 if none."""
        if self.params.refresh == "step" or self.settled is not None:
            return 0
        return self.params.calibration_batches or CALIBRATION_BATCHES

    def check_layers(self, layers: int) -> None:
        """Raise PlanError if a model of `layers` decoder layers has too few."""
        if self.params.top_k > layers:
            raise PlanError(f"lafd: top_k is {self.params.top_k}, but the teacher has {layers} layers")

    @torch.no_grad()
    def observe(self, hidden_states: tuple[Tensor, ...], mask: Tensor) -> None:
        """Take one batch of the teacher's states into the averages."""
        self.check_layers(len(hidden_states) - 1)
        self._observed.append(self._scores(hidden_states, mask).cpu())

    def settle(self, layers: Sequence[int] | None = None) -> list[int]:
        """Fix the layers: those given, or the ones that the observed batches choose.

        Raises:
            PlanError: nothing was observed.
        """
        if layers is None:
            if not self._observed:
                raise PlanError("lafd: refresh is 'calibration', but no batch was observed")
            layers = (self._lowest(torch.stack(self._observed).mean(dim=0)) + 1).tolist()
        self._settled, self._observed = sorted(layers), []
        return self._settled

    def fixed_layers(self, layers: int) -> list[int]:
        """The layers that `settle` fixed."""
        assert self.settled is not None
        return self.settled

    @torch.no_grad()
    def weights(self, hidden_states: tuple[Tensor, ...], mask: Tensor) -> Tensor:
        """float32 `[L+1]` from L+1 states `[batch, seq, hidden]` and the bool mask `[batch, seq]` of real tokens."""
        self.check_layers(len(hidden_states) - 1)
        if self.settled is not None:
            return equal_weights(self.settled, len(hidden_states)).to(mask.device)
        chosen = torch.zeros(len(hidden_states), dtype=torch.float32, device=mask.device)
        order = self._lowest(self._scores(hidden_states, mask))
        return chosen.index_fill_(0, order + 1, 1.0 / self.params.top_k)

    def _lowest(self, scores: Tensor) -> Tensor:
        return torch.sort(scores, stable=True).indices[: self.params.top_k]

    def _scores(self, hidden_states: tuple[Tensor, ...], mask: Tensor) -> Tensor:
        """`[L]`: the lower, the sooner a layer is chosen.

        Raises:
            PlanError: the metric compares states of one shape, but shapes differ.
        """
        if self.params.metric != "norm" and len({state.shape for state in hidden_states}) > 1:
            shapes = ", ".join(dict.fromkeys(str(list(state.shape[1:])) for state in hidden_states))
            raise PlanError(
                f"lafd: metric {self.params.metric} needs states of one shape, but those of the teacher have {shapes}; "
                "use metric: norm, or choose layers by number"
            )
        match self.params.metric:
            case "cosine":
                pairs = pairwise(hidden_states)
                return torch.stack([_mean_cosine(current, previous, mask) for previous, current in pairs])
            case "norm":
                return torch.stack([-_mean_norm(states, mask) for states in hidden_states[1:]])
            case "variance":
                return torch.stack([-_mean_variance(states, mask) for states in hidden_states[1:]])


def _mean_cosine(current: Tensor, previous: Tensor, mask: Tensor) -> Tensor:
    return _mean(dispatch.row_cosine(current, previous), mask)


def _mean_norm(states: Tensor, mask: Tensor) -> Tensor:
    return _mean(states.float().norm(dim=-1), mask)


def _mean_variance(states: Tensor, mask: Tensor) -> Tensor:
    """Mean over features and live sequences of the unbiased variance over a sequence's positions."""
    weights = mask.unsqueeze(-1).float()
    lengths = weights.sum(dim=1)
    real = states.float().where(mask.unsqueeze(-1), 0.0)
    centred = (real - real.sum(dim=1, keepdim=True) / lengths.unsqueeze(1).clamp(min=1)) * weights
    variance = centred.square().sum(dim=1) / (lengths - 1).clamp(min=1)
    return _mean(variance.mean(dim=-1), mask.any(dim=-1))


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return values.where(mask, 0.0).sum() / mask.sum().clamp(min=1)
