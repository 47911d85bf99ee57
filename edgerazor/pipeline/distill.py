"""One training step: the teacher runs first, the losses on logits run inside the student's head (ARCHITECTURE 8).

total = task_weight * cross entropy + sum of weight * loss
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgerazor.core.contracts import ArchitectureAdapter, DistillationLoss, Signal
from edgerazor.core.outputs import Head, LossOutput, ModelOutput, Targets, TeacherRows
from edgerazor.core.registry import Registry
from edgerazor.kernels.divergence import RowWeights
from edgerazor.kernels.fused_linear import (
    Projection,
    TeacherLogits,
    chunk_rows,
    fused_linear_distillation,
    teacher_statistics,
)
from edgerazor.schemas.distillation import DistillationSection


class Distiller:
    """Composes the losses of a recipe; with none it is plain quantization-aware training.

    Every loss that is a weighted sum of divergences per position shares one fused pass with the cross entropy; others
    that read logits alone run inside the head too; the rest runs on the outputs of the forward pass.
    """

    def __init__(self, losses: Sequence[DistillationLoss], *, task_weight: float, adapter: ArchitectureAdapter):
        names = [loss.params.name for loss in losses]  # type: ignore[attr-defined]
        self.names = [name if names.count(name) == 1 else f"{name}_{index}" for index, name in enumerate(names)]
        self.losses, self.task_weight, self.adapter = list(losses), task_weight, adapter
        self.signals = frozenset(signal for loss in losses for signal in loss.signals)

    @classmethod
    def from_recipe(
        cls, section: DistillationSection | None, *, registry: Registry, adapter: ArchitectureAdapter
    ) -> "Distiller":
        """Build the losses of a recipe; without a section the task is all there is."""
        if section is None:
            return cls([], task_weight=1.0, adapter=adapter)
        return cls([registry.build(loss) for loss in section.losses], task_weight=section.task_weight, adapter=adapter)

    @property
    def needs_teacher(self) -> bool:
        return bool(self.losses)

    def check_models(self, student_config: Any, teacher_config: Any) -> None:
        """Ask every loss whether it can compare these two models.

        Raises:
            PlanError: a loss cannot, for example because depths differ.
        """
        for loss in self.losses:
            if hasattr(loss, "check_models"):
                loss.check_models(student_config, teacher_config)

    def __call__(
        self, student: nn.Module, teacher: nn.Module | None, batch: Mapping[str, Any], targets: Targets
    ) -> LossOutput:
        """Total loss of one batch and detached metrics; `student` may be wrapped by DDP or FSDP."""
        teacher_output = ModelOutput()
        if self.needs_teacher:
            if teacher is None:
                raise ValueError("the losses compare with a teacher, but none was given")
            with torch.no_grad():
                teacher_output = self.adapter.forward(teacher, batch, self.signals)
        metrics: dict[str, Tensor] = {}

        def inside_head(hidden: Tensor, head: Head) -> Tensor:
            value, inside_metrics = self._logits_losses(hidden, head, teacher_output, targets)
            metrics.update(inside_metrics)
            return value.reshape(1, 1, 1)

        output = self.adapter.forward(student, batch, self.signals, inside_head=inside_head)
        assert output.inside_head is not None
        total = output.inside_head.sum()
        for name, loss in self._outside():
            result = loss(output, teacher_output, targets)
            total = total + result.value
            metrics |= _named(name, result)
        return LossOutput(total, metrics)

    def _outside(self) -> list[tuple[str, DistillationLoss]]:
        pairs = zip(self.names, self.losses, strict=True)
        return [(name, loss) for name, loss in pairs if not loss.signals <= {Signal.LOGITS}]

    def _logits_losses(
        self, hidden: Tensor, head: Head, teacher: ModelOutput, targets: Targets
    ) -> tuple[Tensor, dict[str, Tensor]]:
        value, metrics = self._fused(hidden, head, teacher, targets)
        for name, loss in zip(self.names, self.losses, strict=True):
            if loss.signals <= {Signal.LOGITS} and not hasattr(loss, "divergence_weights"):
                result = loss(ModelOutput(final_hidden=hidden, head=head), teacher, targets)
                value = value + result.value
                metrics |= _named(name, result)
        return value, metrics

    def _fused(
        self, hidden: Tensor, head: Head, teacher: ModelOutput, targets: Targets
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The cross entropy and every loss with `divergence_weights`, one pass per temperature."""
        mask = targets.predictions.mask.flatten()
        rows = mask.nonzero().squeeze(-1)
        labels = targets.next_labels().flatten()[rows]
        student = _projection(hidden, head, rows)
        task = targets.predictions.shares("token_mean").flatten()[rows] * self.task_weight
        fused: dict[float, list[tuple[str, Any]]] = {}
        for name, loss in zip(self.names, self.losses, strict=True):
            if hasattr(loss, "divergence_weights"):
                fused.setdefault(loss.params.temperature, []).append((name, loss))  # type: ignore[attr-defined]
        if not fused:
            value, statistics = fused_linear_distillation(
                student, None, labels, RowWeights(torch.zeros_like(task), torch.zeros_like(task), task)
            )
            return value, {"task": (statistics.cross_entropy * task).sum()}
        assert teacher.final_hidden is not None and teacher.head is not None
        projection = _projection(teacher.final_hidden, teacher.head, rows)
        teacher_logits = TeacherLogits(projection, chunk_rows(len(rows), projection.weight.shape[0]))
        teacher_rows = _scattered(teacher_statistics(teacher_logits, labels), rows, len(mask))
        total, metrics = task.new_zeros(()), {}
        for index, (temperature, losses) in enumerate(fused.items()):
            weights = {
                name: tuple(column[rows] for column in loss.divergence_weights(teacher_rows, targets))
                for name, loss in losses
            }
            combined = RowWeights(
                sum((forward for forward, _ in weights.values()), torch.zeros_like(task)),
                sum((reverse for _, reverse in weights.values()), torch.zeros_like(task)),
                task if index == 0 else torch.zeros_like(task),
            )
            value, statistics = fused_linear_distillation(
                student, teacher_logits, labels, combined, temperature=temperature
            )
            total = total + value
            if index == 0:
                metrics["task"] = (statistics.cross_entropy * task).sum()
            for name, loss in losses:
                forward, reverse = weights[name]
                metrics[name] = (statistics.forward_kl * forward + statistics.reverse_kl * reverse).sum()
                if hasattr(loss, "metrics"):
                    metrics |= {f"{name}/{key}": figure for key, figure in loss.metrics(teacher_rows, targets).items()}
                metrics[f"{name}/forward_kl"] = statistics.forward_kl.mean()
                metrics[f"{name}/reverse_kl"] = statistics.reverse_kl.mean()
        return total, metrics


def _projection(hidden: Tensor, head: Head, rows: Tensor) -> Projection:
    """The chosen positions and the head, in the dtype autocast would give them."""
    chosen, weight, bias = head.input(hidden.flatten(0, -2)[rows]), head.weight, head.bias
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        return Projection(chosen.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))
    return Projection(chosen.to(weight.dtype), weight, bias)


def _scattered(statistics: tuple[Tensor, Tensor], rows: Tensor, positions: int) -> TeacherRows:
    """Statistics of the chosen rows back at their positions; 0 elsewhere."""
    return TeacherRows(*(column.new_zeros(positions).index_copy_(0, rows, column) for column in statistics))


def _named(name: str, result: LossOutput) -> dict[str, Tensor]:
    return {name: result.value.detach(), **{f"{name}/{key}": figure for key, figure in result.metrics.items()}}
