"""Held-out figures of a quantized model: loss, bits per byte, KL to the teacher, agreement on the likeliest token."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgerazor.checkpoint import load_model, open_checkpoint
from edgerazor.core.contracts import ArchitectureAdapter
from edgerazor.core.outputs import Head, ModelOutput, Targets, predicted_labels
from edgerazor.core.registry import Registry
from edgerazor.data import Collator
from edgerazor.errors import CheckpointError, PlanError
from edgerazor.evaluate.inputs import held_out_section, measured_rows, open_teacher
from edgerazor.evaluate.task import task_of
from edgerazor.kernels.fused_linear import TeacherLogits, fused_linear_statistics, teacher_statistics
from edgerazor.kernels.projection import chunk_rows
from edgerazor.models.load import pick_device
from edgerazor.models.source import ModelSource
from edgerazor.schemas.data import DataSection
from edgerazor.schemas.evaluation import EvaluationSection
from edgerazor.schemas.recipe import load_recipe


@dataclass(frozen=True)
class EvaluationResult:
    """Means over predicted tokens; without a teacher what is compared with one is None.

    Attributes:
        loss: cross entropy, nats per token.
        bits_per_byte: the same in bits per byte of the predicted text.
        kl_teacher: KL(teacher, student) at temperature 1, nats per token.
        top1_agreement: share of tokens where both find the same token likeliest.
        tokens: predicted tokens; of pictures their number, and what is said of tokens holds for them.
        teacher_loss: cross entropy of the teacher on the same tokens.
        tokens_per_second: predicted tokens by the time the measurement took, the teacher's part of it included.
        top1, top5: shares of labelled pictures whose class is the likeliest, or one of five; None of texts.
        notes: why a figure is None, where that is not what was asked for.
    """

    loss: float
    bits_per_byte: float | None
    kl_teacher: float | None
    top1_agreement: float | None
    tokens: int
    teacher_loss: float | None = None
    tokens_per_second: float | None = field(default=None, compare=False)
    top1: float | None = None
    top5: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def loss_gap(self) -> float | None:
        """By how many nats per token the loss lies above the teacher's."""
        return None if self.teacher_loss is None else self.loss - self.teacher_loss

    def to_dict(self) -> dict[str, float | int | None]:
        """The figures alone."""
        of_classes = ("top1", "top5")
        figures = {key: value for key, value in asdict(self).items() if key not in ("notes", *of_classes)}
        figures["loss_gap"] = self.loss_gap
        if self.top1 is None:
            return figures
        renamed = {"tokens": "images", "tokens_per_second": "images_per_second"}
        of_texts = {renamed.get(key, key): value for key, value in figures.items() if key != "bits_per_byte"}
        return {key: getattr(self, key) for key in of_classes} | of_texts


@torch.no_grad()
def evaluate_model(
    student: nn.Module,
    teacher: nn.Module | None,
    dataset: Any,
    *,
    adapter: ArchitectureAdapter,
    teacher_adapter: ArchitectureAdapter | None = None,
    batch_size: int = 8,
    batches: int | None = None,
    pad_token_id: int = 0,
    collator: Any = None,
    accelerator: Any = None,
) -> EvaluationResult:
    """Evaluate a model as quantized, activations, keys and values included.

    Args:
        student: any model the adapter can run, wrapped or not; its device is where batches go.
        teacher: compared with, or None.
        dataset: rows of `edgerazor.data.load_data`.
        teacher_adapter: where the teacher is of another family.
        batches: at most this many; None is all.
        pad_token_id: fills shorter rows.
        collator: makes batches; None: of rows of texts.
        accelerator: an `accelerate.Accelerator`; each process then takes its share and the sums are reduced.
    """
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    device = next(student.parameters(), next(student.buffers(), torch.zeros(()))).device
    sums = torch.zeros(9, dtype=torch.float64, device=device)
    started, of_classes = time.perf_counter(), False
    with _evaluation_mode(student):
        for batch in _share(dataset, collator or Collator(pad_token_id), batch_size, batches, rank, world):
            moved = {key: value.to(device) for key, value in batch.items() if isinstance(value, Tensor)}
            reference = ModelOutput()
            if teacher is not None:
                reference = (teacher_adapter or adapter).forward(teacher, moved, frozenset())
            sums += _batch_sums(student, reference, moved, adapter)
            of_classes = predicted_labels(moved) is not None
    if accelerator is not None:
        sums = accelerator.reduce(sums, reduction="sum")
    seconds = time.perf_counter() - started
    return _means(sums.tolist(), compared=teacher is not None, of_classes=of_classes, seconds=seconds)


def _means(sums: list[float], *, compared: bool, of_classes: bool, seconds: float) -> EvaluationResult:
    """The figures of all batches from the sums of `_batch_sums`."""
    loss, divergence, agreement, teacher_loss, top1, top5, tokens, labels, text_bytes = sums
    count, labelled = max(tokens, 1.0), max(labels, 1.0)
    return EvaluationResult(
        loss=loss / labelled,
        top1=top1 / labelled if of_classes else None,
        top5=top5 / labelled if of_classes else None,
        bits_per_byte=loss / math.log(2) / text_bytes if text_bytes else None,
        kl_teacher=divergence / count if compared else None,
        top1_agreement=agreement / count if compared else None,
        tokens=int(tokens),
        teacher_loss=teacher_loss / labelled if compared else None,
        tokens_per_second=tokens / max(seconds, 1e-9),
    )


def _batch_sums(
    student: nn.Module, reference: ModelOutput, batch: Mapping[str, Tensor], adapter: ArchitectureAdapter
) -> Tensor:
    targets = Targets.of_batch(batch)
    rows = batch["prediction_rows"]
    labels = targets.next_labels().flatten()[rows]

    def inside_head(hidden: Tensor, head: Head) -> Tensor:
        teacher_logits = None
        if reference.final_hidden is not None and reference.head is not None:
            projection = reference.head.projection(reference.final_hidden, rows, autocast=False)
            chunk = chunk_rows(len(rows), projection.weight.shape[0], projection.weight.device)
            teacher_logits = TeacherLogits(projection, chunk)
        student_rows = head.projection(hidden, rows, autocast=True)
        statistics, agreement = fused_linear_statistics(student_rows, teacher_logits, labels)
        nothing = torch.zeros_like(statistics.cross_entropy)
        parts = [statistics.cross_entropy, statistics.forward_kl, agreement, nothing, nothing, nothing]
        if teacher_logits is not None:
            parts[3] = -teacher_statistics(teacher_logits, labels)[1]
        if targets.predicted is not None:  # classes are few enough to have all logits at once
            parts[4:] = _right(head.logits(hidden).flatten(0, -2)[rows], labels)
        return torch.stack([part.sum(dtype=torch.float64) for part in parts]).reshape(1, 1, 6)

    output = adapter.forward(student, batch, frozenset(), inside_head=inside_head)
    assert output.inside_head is not None
    tokens = torch.tensor(float(len(rows)), dtype=torch.float64, device=labels.device)
    text_bytes = batch["label_bytes"].sum().double() if "label_bytes" in batch else tokens.new_zeros(())
    counts = torch.stack([tokens, (labels >= 0).sum().double(), text_bytes])
    return torch.cat([output.inside_head.double().flatten(), counts])


def _right(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the label is the likeliest class, and whether it is among the five likeliest, `[N]` each."""
    likeliest = logits.topk(min(5, logits.shape[-1]), dim=-1).indices == labels.unsqueeze(-1)
    return likeliest[:, 0], likeliest.any(dim=-1)


def _share(
    dataset: Any, collator: Any, batch_size: int, batches: int | None, rank: int, world: int
) -> Iterator[dict[str, Any]]:
    """This process's batches; all processes get equally many, the missing ones without labels."""
    count = math.ceil(len(dataset) / batch_size)
    count = count if batches is None else min(count, batches)
    for first in range(0, count, world):
        index = first + rank
        rows = [dataset[row] for row in range(index * batch_size, min((index + 1) * batch_size, len(dataset)))]
        if index >= count or not rows:
            rows = [collator.blank(dataset[0])]
        yield collator(rows)


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def evaluate_checkpoint(
    folder: Path,
    *,
    registry: Registry,
    data: DataSection | None = None,
    teacher: str | None = None,
    evaluation: EvaluationSection | None = None,
) -> EvaluationResult:
    """Evaluate a packed checkpoint as it lies on disk.

    Args:
        folder: a packed checkpoint.
        registry: loaded plugins.
        data: what to evaluate on; None takes the held-out data of the recipe the checkpoint was made by.
        teacher: 16-bit model to compare with; None takes the one of the checkpoint's recipe. If that cannot be loaded
            any more, its figures are None and `notes` says why.
        evaluation: batch size and number of batches; None takes those of the checkpoint's recipe.

    Raises:
        CheckpointError: the folder is no packed checkpoint, or `teacher` cannot be loaded.
        PlanError: `teacher` has another vocabulary.
        DataError: there is nothing to evaluate on.
    """
    opened = open_checkpoint(folder, registry=registry)
    recipe = load_recipe(opened.recipe, registry=registry)
    section, evaluation = held_out_section(folder, recipe.data, data), evaluation or recipe.evaluation
    source = ModelSource(str(folder), registry=registry, family=recipe.model.family)
    task = task_of(section, source, opened.facts, opened.config)
    dataset = measured_rows(task.load(section))
    device = pick_device(use_cpu=recipe.training.use_cpu)
    student: Any = load_model(folder, dtype=torch.float32, registry=registry).to(device)
    compared, notes = None, tuple[str, ...]()
    try:
        theirs = open_teacher(folder, recipe.model, teacher, vocabulary=opened.facts.vocab, registry=registry)
        compared = theirs.load_teacher(device=device)
    except (CheckpointError, PlanError) as error:
        if teacher is not None:
            raise
        notes = (f"compared with no teacher: {error}",)
    adapters = _adapters(registry, recipe.model.family, student, compared)
    result = evaluate_model(
        *(student, compared, dataset),
        adapter=adapters[0],
        teacher_adapter=adapters[1],
        batch_size=evaluation.batch_size,
        batches=evaluation.batches,
        collator=task.collator,
    )
    return replace(result, notes=notes)


def _adapters(registry: Registry, family: str | None, student: Any, teacher: Any) -> tuple[Any, Any]:
    model_type = str(student.config.model_type)
    teacher_type = model_type if teacher is None else str(teacher.config.model_type)
    adapter = registry.adapter_for(family or model_type)
    return adapter, adapter if teacher_type == model_type else registry.adapter_for(teacher_type)
