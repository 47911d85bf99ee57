"""`feature_mse` and `feature_cosine`: hidden states of the student pulled towards the teacher's (METHOD 4.4)."""

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgerazor.core.contracts import LayerSelector, Signal
from edgerazor.core.outputs import ModelOutput, Targets
from edgerazor.errors import PlanError
from edgerazor.plugins.losses.layerwise import LayerwiseLoss, Pair
from edgerazor.plugins.losses.params import FeatureCosineParams, FeatureMSEParams, FeatureParams

PROJECTION_SEED = 3407
SMALLEST_SQUARE = 1e-12


class FeatureLoss(LayerwiseLoss):
    """Compares hidden states; with `projection` the student's first go through a matrix that is learned along.

    Attributes:
        module: that matrix `[teacher width, student width]`, one for all layers, made by `check_models`; None without
            it. It is trained with the student, saved with the optimizer and never exported.
    """

    params: FeatureParams
    compared: ClassVar = frozenset({Signal.HIDDEN_STATES})

    def __init__(self, params: FeatureParams, layers: LayerSelector):
        super().__init__(params, layers)
        self.module: nn.Linear | None = None

    def check_models(self, student: Any, teacher: Any) -> None:
        """Also compare the widths, and make the projection between them.

        Raises:
            PlanError: as in the base class, or widths differ without a projection.
        """
        super().check_models(student, teacher)
        ours, theirs = student.hidden_size, teacher.hidden_size
        if self.params.projection is not None:
            if not isinstance(ours, int) or not isinstance(theirs, int):
                raise PlanError(
                    f"{self.params.name}: projection: one matrix serves all layers, but the widths of these differ "
                    f"(student {ours}, teacher {theirs}); leave it out, and take a teacher of the student's widths"
                )
            self.module = _projection(ours, theirs)
        elif ours != theirs:
            raise PlanError(
                f"{self.params.name}: hidden_size is {ours} in the student and {theirs} in the teacher; set "
                "projection: linear to learn a matrix between them"
            )

    def values(self, student: ModelOutput, teacher: ModelOutput, pair: Pair, targets: Targets) -> Tensor:
        assert student.hidden_states is not None and teacher.hidden_states is not None
        ours, theirs = student.hidden_states[pair.student], _exact(teacher.hidden_states[pair.teacher].detach())
        if self.params.projection is None:
            return self.distance(_exact(ours), theirs)
        if self.module is None:
            raise PlanError(f"{self.params.name}: its projection was not made; call check_models first")
        with torch.autocast(ours.device.type, enabled=False):
            return self.distance(functional.linear(ours.to(self.module.weight.dtype), self.module.weight), theirs)

    @abstractmethod
    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """`[batch, seq]` of `[batch, seq, H]` or `[batch, heads, seq, head_dim]`, float32 or float64."""

    def _depth(self, output: ModelOutput) -> int:
        assert output.hidden_states is not None
        return len(output.hidden_states) - 1


class FeatureMSE(FeatureLoss):
    """Mean over the features of the squared difference; the reduction `sum` averages nothing at all.

    With `relative` it is divided by the mean square of the teacher's state at the same position, 0 where both agree and
    1 where the student gives zeros.
    """

    params: FeatureMSEParams

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        squares, axes = (student - teacher).square(), _feature_axes(student)
        if self.params.relative:
            return squares.mean(dim=axes) / teacher.square().mean(dim=axes).clamp_min(SMALLEST_SQUARE)
        return squares.sum(dim=axes) if self.params.reduction == "sum" else squares.mean(dim=axes)


class FeatureCosine(FeatureLoss):
    """1 - cosine: 0 where directions agree, 2 where they are opposite."""

    params: FeatureCosineParams

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        if student.ndim == 4:
            student, teacher = (states.transpose(1, 2).flatten(2) for states in (student, teacher))
        return 1 - functional.cosine_similarity(student, teacher, dim=-1)


def _feature_axes(states: Tensor) -> tuple[int, ...]:
    return (1, 3) if states.ndim == 4 else (2,)


def _projection(columns: int, rows: int) -> nn.Linear:
    """Orthogonal rows or columns, the same in every process, and no change of lengths where the widths agree."""
    matrix = nn.Linear(columns, rows, bias=False, dtype=torch.float32)
    nn.init.orthogonal_(matrix.weight, generator=torch.Generator().manual_seed(PROJECTION_SEED))
    return matrix


def _exact(states: Tensor) -> Tensor:
    return states if states.dtype == torch.float64 else states.float()
