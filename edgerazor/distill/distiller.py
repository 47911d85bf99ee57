"""One training step: the teacher runs first, the losses on logits run inside the student's head (ARCHITECTURE 8).

total = task_weight * cross entropy + sum of weight * loss
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgerazor.core.contracts import ArchitectureAdapter, DistillationLoss, Signal, WeighsDivergences
from edgerazor.core.outputs import Head, LossOutput, ModelOutput, Targets
from edgerazor.core.registry import Registry
from edgerazor.distill.fused import FusedPass
from edgerazor.errors import PlanError
from edgerazor.kernels.cached_teacher import TopTokens
from edgerazor.schemas.distillation import DistillationSection


class Distiller:
    """Composes the losses of a recipe; with none it is plain quantization-aware training.

    Every loss that is a weighted sum of divergences per position shares one fused pass with the cross entropy; others
    that read logits alone run inside the head too; the rest runs on the outputs of the forward pass.

    Args:
        losses: built from a recipe.
        task_weight: of the cross entropy.
        adapter: of the student.
        teacher_adapter: where the teacher is of another family.
        teacher_logits_mib: budget for the teacher's logits between two passes over them; None is the kernels' own.

    Raises:
        PlanError: a loss needs a signal that an adapter cannot give.
    """

    def __init__(
        self,
        losses: Sequence[DistillationLoss],
        *,
        task_weight: float,
        adapter: ArchitectureAdapter,
        teacher_adapter: ArchitectureAdapter | None = None,
        teacher_logits_mib: float | None = None,
    ):
        names = [loss.params.name for loss in losses]
        self.names = [name if names.count(name) == 1 else f"{name}_{index}" for index, name in enumerate(names)]
        self.losses, self.task_weight, self.adapter = list(losses), task_weight, adapter
        self.teacher_adapter = teacher_adapter or adapter
        self._teacher_depth: int | None = None
        divergences = [(name, loss) for name, loss in self.named() if isinstance(loss, WeighsDivergences)]
        self.fused = FusedPass(divergences, task_weight, teacher_logits_mib=teacher_logits_mib)
        for name, loss in self.named():
            _check_signals(name, loss.signals, self.adapter)
            _check_signals(f"{name}: of the teacher", loss.teacher_signals, self.teacher_adapter)

    @classmethod
    def from_recipe(
        cls,
        section: DistillationSection | None,
        *,
        registry: Registry,
        adapter: ArchitectureAdapter,
        teacher_adapter: ArchitectureAdapter | None = None,
    ) -> "Distiller":
        """Build the losses of a recipe; without a section the task is all there is."""
        if section is None:
            return cls([], task_weight=1.0, adapter=adapter, teacher_adapter=teacher_adapter)
        losses = [registry.build(loss) for loss in section.losses]
        return cls(
            losses,
            task_weight=section.task_weight,
            adapter=adapter,
            teacher_adapter=teacher_adapter,
            teacher_logits_mib=section.teacher_logits_mib,
        )

    def named(self) -> list[tuple[str, DistillationLoss]]:
        """The losses by name; those of one kind are numbered."""
        return list(zip(self.names, self.losses, strict=True))

    @property
    def signals(self) -> frozenset[Signal]:
        """What the student's forward pass has to give."""
        return frozenset(signal for loss in self.losses for signal in loss.signals)

    @property
    def teacher_signals(self) -> frozenset[Signal]:
        """What the teacher's has to give; fewer once layers are settled."""
        return frozenset(signal for loss in self.losses for signal in loss.teacher_signals)

    @property
    def needs_teacher(self) -> bool:
        return bool(self.teacher_signals)

    def check_models(self, student_config: Any, teacher_config: Any) -> None:
        """Ask every loss whether it can compare these two models, and the models whether losses see their logits.

        Args:
            student_config, teacher_config: of the models; of those around a language model that of the latter is taken.

        Raises:
            PlanError: a loss cannot, for example because depths differ, or a model caps its logits.
        """
        for adapter, config in ((self.adapter, student_config), (self.teacher_adapter, teacher_config)):
            if (cap := adapter.facts(config).logit_softcap) is not None:
                raise PlanError(
                    f"final_logit_softcapping {cap}: losses that run inside the head cannot see capped logits; "
                    "expected none, as in every published Gemma 3"
                )
        student, teacher = self.adapter.text_config(student_config), self.teacher_adapter.text_config(teacher_config)
        self._teacher_depth = getattr(teacher, "num_hidden_layers", None)
        for loss in self.losses:
            loss.check_models(student, teacher)

    def __call__(
        self, student: nn.Module, teacher: nn.Module | TopTokens | None, batch: Mapping[str, Any], targets: Targets
    ) -> LossOutput:
        """Total loss of one batch; `student` may be wrapped by DDP or FSDP.

        Args:
            teacher: the model, or the cached likeliest tokens of the predicted positions.
            batch: what the adapter's forward takes, and perhaps `prediction_rows`: int64 indices of the predicted
                positions of the flattened batch, found on the CPU. Without it they are found on the device, for which
                the host must wait.

        Returns:
            The total; as shares `task`, the value of every loss by its name, and the losses' own shares; as metrics the
            losses' own. Their own figures are named `loss/figure`. Names do not depend on the batch.
        """
        theirs = self._teach(teacher, batch)
        running = theirs if isinstance(theirs, ModelOutput) else ModelOutput()  # nothing is left of a cached teacher
        parts: list[LossOutput] = []

        def inside_head(hidden: Tensor, head: Head) -> Tensor:
            parts.append(self.fused(hidden, head, theirs, targets, batch.get("prediction_rows")))
            for name, loss in self._apart(outside=False):
                parts.append(_named(name, loss(ModelOutput(final_hidden=hidden, head=head), running, targets)))
            return sum((part.value for part in parts), hidden.new_zeros((), dtype=torch.float32)).reshape(1, 1, 1)

        output = self.adapter.forward(student, batch, self.signals, inside_head=inside_head)
        assert output.inside_head is not None
        total = output.inside_head.sum()
        for name, loss in self._apart(outside=True):
            parts.append(_named(name, loss(output, running, targets)))
            total = total + parts[-1].value
        if output.balancing_loss is not None:
            share = targets.attention.shares("token_mean").sum() * self.task_weight
            balancing = output.balancing_loss * share
            parts.append(LossOutput(balancing, shares={"balancing": balancing.detach()}))
            total = total + balancing
        metrics = {key: figure for part in parts for key, figure in part.metrics.items()}
        return LossOutput(total, metrics, {key: figure for part in parts for key, figure in part.shares.items()})

    def _teach(self, teacher: nn.Module | TopTokens | None, batch: Mapping[str, Any]) -> ModelOutput | TopTokens:
        if isinstance(teacher, TopTokens):
            return teacher
        if not self.needs_teacher:
            return ModelOutput()
        if teacher is None:
            raise ValueError("the losses compare with a teacher, but none was given")
        layers = self._teacher_layers()
        options: dict[str, Any] = {} if layers is None else {"layers": layers}
        with torch.no_grad():
            return self.teacher_adapter.forward(teacher, batch, self.teacher_signals, **options)

    def _teacher_layers(self) -> set[int] | None:
        """Hidden states that any loss reads of the teacher, where that is known before it runs; None for all."""
        if self._teacher_depth is None or not self.teacher_adapter.keeps_layers:
            return None
        layers: set[int] = set()
        for loss in self.losses:
            if Signal.HIDDEN_STATES in loss.teacher_signals:
                read = loss.teacher_layers(self._teacher_depth)
                if read is None:
                    return None
                layers |= set(read)
        return layers

    def _apart(self, *, outside: bool) -> list[tuple[str, DistillationLoss]]:
        """Losses that are not in the fused pass: those on logits alone, or those that need more (`outside`)."""
        apart = [(name, loss) for name, loss in self.named() if not isinstance(loss, WeighsDivergences)]
        return [(name, loss) for name, loss in apart if (not loss.signals <= {Signal.LOGITS}) == outside]


def _check_signals(what: str, signals: Any, adapter: ArchitectureAdapter) -> None:
    if lacking := sorted(signal.value for signal in signals - adapter.signals):
        given = ", ".join(sorted(signal.value for signal in adapter.signals))
        raise PlanError(
            f"{what}: needs {', '.join(lacking)}, which {type(adapter).__name__} does not give; it gives {given}"
        )


def _named(name: str, result: LossOutput) -> LossOutput:
    """The result with its figures named after the loss, its own value among the shares."""
    metrics, shares = (
        {f"{name}/{key}": figure.detach() for key, figure in figures.items()}
        for figures in (result.metrics, result.shares)
    )
    return LossOutput(result.value, metrics, {name: result.value.detach(), **shares})
