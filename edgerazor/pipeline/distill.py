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
from edgerazor.errors import PlanError
from edgerazor.kernels.divergence import RowWeights
from edgerazor.kernels.fused_linear import TeacherLogits, chunk_rows, fused_linear_distillation, teacher_statistics
from edgerazor.schemas.distillation import DistillationSection


class Distiller:
    """Composes the losses of a recipe; with none it is plain quantization-aware training.

    Every loss that is a weighted sum of divergences per position shares one fused pass with the cross entropy; others
    that read logits alone run inside the head too; the rest runs on the outputs of the forward pass.

    Raises:
        PlanError: a loss needs a signal that the adapter cannot give.
    """

    def __init__(self, losses: Sequence[DistillationLoss], *, task_weight: float, adapter: ArchitectureAdapter):
        names = [loss.params.name for loss in losses]
        self.names = [name if names.count(name) == 1 else f"{name}_{index}" for index, name in enumerate(names)]
        self.losses, self.task_weight, self.adapter = list(losses), task_weight, adapter
        self.signals = frozenset(signal for loss in losses for signal in loss.signals)
        for name, loss in zip(self.names, losses, strict=True):
            if lacking := sorted(signal.value for signal in loss.signals - adapter.signals):
                given = ", ".join(sorted(signal.value for signal in adapter.signals))
                adapter_name = type(adapter).__name__
                raise PlanError(
                    f"{name}: needs {', '.join(lacking)}, which {adapter_name} does not give; it gives {given}"
                )

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
        """Total loss of one batch; `student` may be wrapped by DDP or FSDP.

        Args:
            batch: what the adapter's forward takes, and perhaps `prediction_rows`: int64 indices of the predicted
                positions of the flattened batch, found on the CPU. Without it they are found on the device, for which
                the host must wait.

        Returns:
            The total; as shares `task`, the value of every loss by its name, and the losses' own shares; as metrics the
            losses' own. Their own figures are named `loss/figure`. Names do not depend on the batch.
        """
        teacher_output = ModelOutput()
        if self.needs_teacher:
            if teacher is None:
                raise ValueError("the losses compare with a teacher, but none was given")
            with torch.no_grad():
                teacher_output = self.adapter.forward(teacher, batch, self.signals)
        parts: list[LossOutput] = []

        def inside_head(hidden: Tensor, head: Head) -> Tensor:
            parts.extend(self._logits_losses(hidden, head, teacher_output, targets, batch.get("prediction_rows")))
            return sum((part.value for part in parts), hidden.new_zeros((), dtype=torch.float32)).reshape(1, 1, 1)

        output = self.adapter.forward(student, batch, self.signals, inside_head=inside_head)
        assert output.inside_head is not None
        total = output.inside_head.sum()
        for name, loss in self._outside():
            parts.append(_named(name, loss(output, teacher_output, targets)))
            total = total + parts[-1].value
        metrics = {key: figure for part in parts for key, figure in part.metrics.items()}
        return LossOutput(total, metrics, {key: figure for part in parts for key, figure in part.shares.items()})

    def _outside(self) -> list[tuple[str, DistillationLoss]]:
        pairs = zip(self.names, self.losses, strict=True)
        return [(name, loss) for name, loss in pairs if not loss.signals <= {Signal.LOGITS}]

    def _logits_losses(
        self, hidden: Tensor, head: Head, teacher: ModelOutput, targets: Targets, rows: Tensor | None
    ) -> list[LossOutput]:
        parts = [self._fused(hidden, head, teacher, targets, rows)]
        for name, loss in zip(self.names, self.losses, strict=True):
            if loss.signals <= {Signal.LOGITS} and not hasattr(loss, "divergence_weights"):
                parts.append(_named(name, loss(ModelOutput(final_hidden=hidden, head=head), teacher, targets)))
        return parts

    def _fused(
        self, hidden: Tensor, head: Head, teacher: ModelOutput, targets: Targets, rows: Tensor | None
    ) -> LossOutput:
        """The cross entropy and every loss with `divergence_weights`, one pass per temperature."""
        mask = targets.predictions.mask.flatten()
        rows = mask.nonzero().squeeze(-1) if rows is None else rows
        labels = targets.next_labels().flatten()[rows]
        student = head.projection(hidden, rows, autocast=True)
        task = targets.predictions.shares("token_mean").flatten()[rows] * self.task_weight
        nothing = torch.zeros_like(task)
        fused = self._by_temperature()
        if not fused:
            value, statistics = fused_linear_distillation(student, None, labels, RowWeights(nothing, nothing, task))
            return LossOutput(value, shares={"task": (statistics.cross_entropy * task).sum()})
        assert teacher.final_hidden is not None and teacher.head is not None
        projection = teacher.head.projection(teacher.final_hidden, rows, autocast=False)
        chunk = chunk_rows(len(rows), projection.weight.shape[0], projection.weight.device)
        teacher_logits = TeacherLogits(projection, chunk)
        teacher_rows = _scattered(teacher_statistics(teacher_logits, labels), rows, len(mask))
        total, shares, metrics = task.new_zeros(()), dict[str, Tensor](), dict[str, Tensor]()
        for index, (temperature, losses) in enumerate(fused.items()):
            weights = {
                name: tuple(column[rows] for column in loss.divergence_weights(teacher_rows, targets))
                for name, loss in losses
            }
            forward_weight = sum((forward for forward, _ in weights.values()), nothing)
            reverse_weight = sum((reverse for _, reverse in weights.values()), nothing)
            combined = RowWeights(forward_weight, reverse_weight, task if index == 0 else nothing)
            value, statistics = fused_linear_distillation(
                student, teacher_logits, labels, combined, temperature=temperature
            )
            total = total + value
            if index == 0:
                shares["task"] = (statistics.cross_entropy * task).sum()
            for name, loss in losses:
                forward, reverse = weights[name]
                shares[name] = (statistics.forward_kl * forward + statistics.reverse_kl * reverse).sum()
                if hasattr(loss, "metrics"):
                    metrics |= {f"{name}/{key}": figure for key, figure in loss.metrics(teacher_rows, targets).items()}
                metrics[f"{name}/forward_kl"] = statistics.forward_kl.sum() / max(len(rows), 1)
                metrics[f"{name}/reverse_kl"] = statistics.reverse_kl.sum() / max(len(rows), 1)
        return LossOutput(total, metrics, shares)

    def _by_temperature(self) -> dict[float, list[tuple[str, Any]]]:
        """The losses with `divergence_weights`; those of one temperature share a pass."""
        fused: dict[float, list[tuple[str, Any]]] = {}
        for name, loss in zip(self.names, self.losses, strict=True):
            if hasattr(loss, "divergence_weights"):
                fused.setdefault(loss.params.temperature, []).append((name, loss))  # type: ignore[attr-defined]
        return fused


def _scattered(statistics: tuple[Tensor, Tensor], rows: Tensor, positions: int) -> TeacherRows:
    """Statistics of the chosen rows back at their positions; 0 elsewhere."""
    return TeacherRows(*(column.new_zeros(positions).index_copy_(0, rows, column) for column in statistics))


def _named(name: str, result: LossOutput) -> LossOutput:
    """The result with its figures named after the loss, its own value among the shares."""
    metrics, shares = (
        {f"{name}/{key}": figure.detach() for key, figure in figures.items()}
        for figures in (result.metrics, result.shares)
    )
    return LossOutput(result.value, metrics, {name: result.value.detach(), **shares})
