"""Losses between layers of student and teacher: which pairs are compared, and the mean over them (METHOD 4.4)."""

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from edgerazor.core.contracts import DistillationLoss, LayerSelector, Signal
from edgerazor.core.outputs import LossOutput, ModelOutput, Targets
from edgerazor.errors import PlanError
from edgerazor.plugins.losses.params import LayerwiseParams


class Pair(NamedTuple):
    """A layer of the teacher, the student's layer that it is compared with, and its share of the loss."""

    teacher: int
    student: int
    share: Tensor


class LayerwiseLoss(DistillationLoss):
    """Mean over the selected layers of a value per position, reduced over `tokens`.

    The selector numbers hidden states: 0 is the embedding output, l the state after decoder layer l.
    """

    compared: ClassVar[frozenset[Signal]]
    lowest_layer: ClassVar[int] = 0

    def __init__(self, params: LayerwiseParams, layers: LayerSelector):
        super().__init__(params)
        self.layers: LayerSelector = layers

    @property
    def signals(self) -> frozenset[Signal]:
        """What is compared."""
        return self.compared

    @property
    def teacher_signals(self) -> frozenset[Signal]:
        """What is compared, and the hidden states where the choice of layers depends on them."""
        return self.compared | {Signal.HIDDEN_STATES} if self._reads_states else self.compared

    @abstractmethod
    def values(self, student: ModelOutput, teacher: ModelOutput, pair: Pair, targets: Targets) -> Tensor:
        """`[batch, seq]`: how far apart the two are at every position, of one pair of layers."""

    def check_models(self, student: Any, teacher: Any) -> None:
        """Compare the two text configurations.

        Raises:
            PlanError: depths differ and no layer_map says what to do, or a layer is out of range.
        """
        ours, theirs = student.num_hidden_layers, teacher.num_hidden_layers
        name = self.params.name
        if ours != theirs and self.params.layer_map == "same":
            raise PlanError(
                f"{name}: num_hidden_layers is {ours} in the student and {theirs} in the teacher; set layer_map: "
                "proportional, or write {teacher layer: student layer}"
            )
        self.layers.check_layers(theirs)
        for layer in self.candidates(theirs):
            self._check_layer(layer)
            self.student_layer(layer, ours, theirs)

    def candidates(self, layers: int) -> list[int]:
        """Layers of a teacher with that many that may be compared: those of the selector, or all it may choose."""
        if not self._reads_states:
            return list(self.layers.fixed_layers(layers))
        lowest = max(self.lowest_layer, self.layers.lowest_layer)
        return list(range(lowest, layers + 1))

    def teacher_layers(self, layers: int) -> list[int] | None:
        """Hidden states that are read of a teacher with that many layers; None if a choice reads all of them."""
        return None if self._reads_states else self.candidates(layers)

    def student_layer(self, layer: int, student_layers: int, teacher_layers: int) -> int:
        """The student's layer that meets a layer of the teacher.

        Raises:
            PlanError: the recipe's layer_map has no entry for it, or one that the student does not have.
        """
        chosen = self.params.layer_map
        if chosen == "same":
            return layer
        if chosen == "proportional":
            nearest = (2 * layer * student_layers + teacher_layers) // (2 * teacher_layers)
            return max(nearest, min(layer, 1))  # only the embedding output meets the embedding output
        assert isinstance(chosen, dict)
        if layer not in chosen:
            raise PlanError(f"{self.params.name}: layer_map has no entry for the teacher's layer {layer}")
        if not self.lowest_layer <= chosen[layer] <= student_layers:
            raise PlanError(
                f"{self.params.name}: layer_map gives the teacher's layer {layer} the student's layer {chosen[layer]}; "
                f"the student has {self.lowest_layer} to {student_layers}"
            )
        return chosen[layer]

    def __call__(self, student: ModelOutput, teacher: ModelOutput, targets: Targets) -> LossOutput:
        return self.compare(student, teacher, targets, *self._weights(teacher, targets))

    def compare(
        self, student: ModelOutput, teacher: ModelOutput, targets: Targets, weights: Tensor, layers: list[int]
    ) -> LossOutput:
        """The loss with weights `[L+1]`, of which all that are not zero belong to `layers`."""
        depths = self._depth(student), self._depth(teacher)
        shares = targets.tokens.shares(self.params.reduction)
        value = shares.new_zeros(())
        per_layer = {f"layer_{layer}": shares.new_zeros(()) for layer in range(len(weights))}
        for layer in layers:
            pair = Pair(layer, self.student_layer(layer, *depths), weights[layer])
            distances = self.values(student, teacher, pair, targets)
            # A product with 0 would let a masked NaN through.
            reduced = (distances.where(shares > 0, 0.0) * shares).sum()
            value = value + pair.share * reduced
            per_layer[f"layer_{layer}"] = reduced.detach().where(pair.share > 0, 0.0)
        return LossOutput(value * self.params.weight, _chosen(weights), per_layer)

    @abstractmethod
    def _depth(self, output: ModelOutput) -> int:
        """Decoder layers of a forward pass."""

    @property
    def _reads_states(self) -> bool:
        return self.layers.reads_states

    def _check_layer(self, layer: int) -> None:
        if layer < self.lowest_layer:
            raise PlanError(f"{self.params.name}: layer {layer} is no decoder layer; they are numbered from 1")

    @torch.no_grad()
    def _weights(self, teacher: ModelOutput, targets: Targets) -> tuple[Tensor, list[int]]:
        """Weights `[L+1]`, and the layers worth computing.

        On a GPU those are all that a selector may choose, since knowing which weights are zero would halt the host.
        """
        mask, layers = targets.attention.mask, self._depth(teacher)
        candidates = self.candidates(layers)
        if not self._reads_states:
            weights = torch.zeros(layers + 1, dtype=torch.float32)
            weights[candidates] = 1.0 / len(candidates)
            return weights.to(mask.device, non_blocking=True), candidates
        assert teacher.hidden_states is not None
        weights = self.layers.weights(teacher.hidden_states, mask)
        if weights.device.type != "cpu":
            return weights, candidates
        chosen = [int(layer) for layer in weights.nonzero()]
        for layer in chosen:
            self._check_layer(layer)
        return weights, chosen


def _chosen(weights: Tensor) -> dict[str, Tensor]:
    return {f"chosen_{layer}": share for layer, share in enumerate((weights > 0).to(torch.float32).unbind())}
