"""`feature_mse`: hidden states of the student pulled towards the teacher's (METHOD 4.4)."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from edgerazor.core.contracts import LayerSelector, Signal
from edgerazor.core.outputs import LossOutput, ModelOutput, Targets
from edgerazor.errors import PlanError
from edgerazor.plugins.losses.params import FeatureMSEParams


class FeatureMSE:
    """Mean over the selected layers of the mean squared difference over features, reduced over `tokens`."""

    signals: ClassVar = frozenset({Signal.HIDDEN_STATES})

    def __init__(self, params: FeatureMSEParams, layers: LayerSelector):
        self.params, self.layers = params, layers

    def check_models(self, student: Any, teacher: Any) -> None:
        """Raise PlanError unless both configs agree in depth and width and have the layers that are asked for."""
        for field in ("num_hidden_layers", "hidden_size"):
            ours, theirs = getattr(student, field), getattr(teacher, field)
            if ours != theirs:
                raise PlanError(f"feature_mse: {field} is {ours} in the student and {theirs} in the teacher")
        if hasattr(self.layers, "check_layers"):
            self.layers.check_layers(teacher.num_hidden_layers)

    def __call__(self, student: ModelOutput, teacher: ModelOutput, targets: Targets) -> LossOutput:
        assert student.hidden_states is not None and teacher.hidden_states is not None
        weights = self.layers.weights(teacher.hidden_states, targets.attention.mask)
        shares = targets.tokens.shares(self.params.reduction)
        value = shares.new_zeros(())
        per_layer = {f"layer_{layer}": shares.new_zeros(()) for layer in range(len(weights))}
        for layer in _compared(weights):
            difference = _exact(student.hidden_states[layer]) - _exact(teacher.hidden_states[layer].detach())
            reduced = (self._per_position(difference.square()) * shares).sum()
            value = value + weights[layer] * reduced
            per_layer[f"layer_{layer}"] = reduced.detach().where(weights[layer] > 0, 0.0)
        return LossOutput(value * self.params.weight, _chosen(weights), per_layer)

    def _per_position(self, squares: Tensor) -> Tensor:
        """`[batch, seq]` of `[batch, seq, H]` or `[batch, heads, seq, head_dim]`; `sum` averages nothing at all."""
        axes = (1, 3) if squares.ndim == 4 else (2,)
        return squares.sum(dim=axes) if self.params.reduction == "sum" else squares.mean(dim=axes)


def _compared(weights: Tensor) -> list[int]:
    """Layers worth computing: on a GPU all of them, since knowing which are zero would halt the host."""
    if weights.device.type == "cpu":
        return [int(layer) for layer in weights.nonzero()]
    return list(range(len(weights)))


def _chosen(weights: Tensor) -> dict[str, Tensor]:
    return {f"chosen_{layer}": share for layer, share in enumerate((weights > 0).to(torch.float32).unbind())}


def _exact(states: Tensor) -> Tensor:
    return states if states.dtype == torch.float64 else states.float()
