"""One pass over the head for the cross entropy and every loss that weighs forward and reverse KL (ARCHITECTURE 8)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from edgerazor.core.contracts import WeighsDivergences
from edgerazor.core.outputs import Head, LossOutput, ModelOutput, Targets, TeacherRows
from edgerazor.kernels.cached_teacher import CachedTeacherLogits, TopTokens
from edgerazor.kernels.divergence import RowWeights
from edgerazor.kernels.fused_linear import (
    TeacherLogits,
    TeacherRowSource,
    fused_linear_distillation,
    teacher_statistics,
)
from edgerazor.kernels.projection import Projection, chunk_rows

NamedLosses = Sequence[tuple[str, WeighsDivergences]]


class FusedPass:
    """Cross entropy and divergences of one batch, run inside the student's head.

    Args:
        losses: by name. Those of one temperature share a pass.
        task_weight: of the cross entropy.
        teacher_logits_mib: budget for keeping the teacher's logits; None is the kernels' own.
    """

    def __init__(self, losses: NamedLosses, task_weight: float, *, teacher_logits_mib: float | None = None):
        self.task_weight = task_weight
        self.keep_bytes = None if teacher_logits_mib is None else int(teacher_logits_mib * 2**20)
        self.by_temperature: dict[float, list[tuple[str, WeighsDivergences]]] = {}
        for name, loss in losses:
            self.by_temperature.setdefault(loss.temperature, []).append((name, loss))

    @property
    def temperatures(self) -> tuple[float, ...]:
        """In the order of the losses."""
        return tuple(self.by_temperature)

    def __call__(
        self,
        hidden: Tensor,
        head: Head,
        teacher: ModelOutput | TopTokens,
        targets: Targets,
        rows: Tensor | None,
    ) -> LossOutput:
        """Weighted sum of all, with shares and metrics by name.

        Args:
            hidden: the student's `[batch, seq, hidden]` as it enters the head.
            teacher: its forward pass, or the cached likeliest tokens of the predicted positions.
            rows: int64 indices of the predicted positions of the flattened batch; None finds them on the device.
        """
        mask = targets.predictions.mask.flatten()
        rows = mask.nonzero().squeeze(-1) if rows is None else rows
        labels = targets.next_labels().flatten()[rows]
        student = head.projection(hidden, rows, autocast=True)
        task = (targets.task or targets.predictions).shares("token_mean").flatten()[rows] * self.task_weight
        nothing = torch.zeros_like(task)
        if not self.by_temperature:
            value, statistics = fused_linear_distillation(student, None, labels, RowWeights(nothing, nothing, task))
            return LossOutput(value, shares={"task": (statistics.cross_entropy * task).sum()})
        source, columns = self._source(teacher, student, labels, rows)
        teacher_rows = TeacherRows(*(_scattered(column, rows, len(mask)) for column in columns))
        total, shares, metrics = task.new_zeros(()), dict[str, Tensor](), dict[str, Tensor]()
        for index, (temperature, losses) in enumerate(self.by_temperature.items()):
            weights = {
                name: tuple(column[rows] for column in loss.divergence_weights(teacher_rows, targets))
                for name, loss in losses
            }
            forward_weight = sum((forward for forward, _ in weights.values()), nothing)
            reverse_weight = sum((reverse for _, reverse in weights.values()), nothing)
            combined = RowWeights(forward_weight, reverse_weight, task if index == 0 else nothing)
            value, statistics = fused_linear_distillation(student, source, labels, combined, temperature=temperature)
            total = total + value
            if index == 0:
                shares["task"] = (statistics.cross_entropy * task).sum()
            for name, loss in losses:
                forward, reverse = weights[name]
                shares[name] = (statistics.forward_kl * forward + statistics.reverse_kl * reverse).sum()
                figures = loss.metrics(teacher_rows, targets)
                metrics |= {f"{name}/{key}": figure for key, figure in figures.items()}
                metrics[f"{name}/forward_kl"] = statistics.forward_kl.sum() / max(len(rows), 1)
                metrics[f"{name}/reverse_kl"] = statistics.reverse_kl.sum() / max(len(rows), 1)
        return LossOutput(total, metrics, shares)

    def _source(
        self, teacher: ModelOutput | TopTokens, student: Projection, labels: Tensor, rows: Tensor
    ) -> tuple[TeacherRowSource, tuple[Tensor, Tensor]]:
        """Teacher logits by chunk, and entropy and label log probability of every predicted position."""
        if isinstance(teacher, TopTokens):
            chunk = chunk_rows(len(rows), student.weight.shape[0], student.weight.device)
            columns = (teacher.entropy, teacher.label_log_probability)
            return CachedTeacherLogits(teacher, self.temperatures, chunk), columns
        assert teacher.final_hidden is not None and teacher.head is not None
        projection = teacher.head.projection(teacher.final_hidden, rows, autocast=False)
        chunk = chunk_rows(len(rows), projection.weight.shape[0], projection.weight.device)
        source = TeacherLogits(projection, chunk, keep_bytes=self.keep_bytes)
        return source, teacher_statistics(source, labels)


def _scattered(column: Tensor, rows: Tensor, positions: int) -> Tensor:
    """Figures of the chosen rows back at their positions; 0 elsewhere."""
    return column.new_zeros(positions).index_copy_(0, rows, column)
