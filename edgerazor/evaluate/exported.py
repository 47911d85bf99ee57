"""Held-out figures of a model as it lies on disk, computed by the engine that runs it."""

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from edgerazor.core.contracts import ClassifierRuntime, Runtime
from edgerazor.core.registry import Registry
from edgerazor.data.rows import IGNORE_INDEX, document_slices
from edgerazor.errors import DataError, PlanError
from edgerazor.evaluate.checkpoints import EvaluationResult
from edgerazor.evaluate.exported_classifier import evaluate_classifier
from edgerazor.evaluate.inputs import held_out_section, load_held_out, measured_rows, open_teacher
from edgerazor.evaluate.logits import log_softmax
from edgerazor.evaluate.task import task_of
from edgerazor.inference.open_runtime import open_exported
from edgerazor.models.load import Models, pick_device
from edgerazor.models.source import ModelSource
from edgerazor.models.transformers_runtime import TransformersRuntime
from edgerazor.schemas.data import DataSection
from edgerazor.schemas.evaluation import EvaluationSection
from edgerazor.schemas.model import ModelSection
from edgerazor.schemas.recipe import load_recipe

_CHUNK = 256


def evaluate_runtime(
    runtime: Runtime, teacher: Runtime | None, dataset: Any, *, rows: int | None = None
) -> EvaluationResult:
    """As `evaluate_model`, through engines: each document is read from an empty cache.

    Args:
        runtime: the model.
        teacher: compared with, or None.
        dataset: rows of `edgerazor.data.load_data`.
        rows: at most this many; None is all.
    """
    loss = divergence = teacher_loss = 0.0
    started = time.perf_counter()
    tokens = agreed = text_bytes = 0
    for index in range(len(dataset) if rows is None else min(rows, len(dataset))):
        row = dataset[index]
        text_bytes += int(row["label_bytes"])
        for ids, labels in _documents(row):
            for ours, theirs, following in _predictions(runtime, teacher, ids, labels):
                loss -= float(ours[np.arange(len(following)), following].sum())
                tokens += len(following)
                if theirs is not None:
                    divergence += float((np.exp(theirs) * (theirs - ours)).sum())
                    teacher_loss -= float(theirs[np.arange(len(following)), following].sum())
                    agreed += int((theirs.argmax(-1) == ours.argmax(-1)).sum())
    count = max(tokens, 1)
    return EvaluationResult(
        loss=loss / count,
        bits_per_byte=loss / math.log(2) / text_bytes if text_bytes else None,
        kl_teacher=divergence / count if teacher is not None else None,
        top1_agreement=agreed / count if teacher is not None else None,
        tokens=tokens,
        teacher_loss=teacher_loss / count if teacher is not None else None,
        tokens_per_second=tokens / max(time.perf_counter() - started, 1e-9),
    )


def evaluate_exported(
    path: Path,
    *,
    registry: Registry,
    data: DataSection | None = None,
    teacher: str | None = None,
    evaluation: EvaluationSection | None = None,
) -> EvaluationResult:
    """Evaluate an exported model in its engine.

    Args:
        path: file or folder that an exporter wrote.
        registry: loaded plugins.
        data: what to evaluate on; None takes the held-out data of the recipe in the export. A file of another tool
            holds no recipe, and needs both data and teacher.
        teacher: 16-bit model to compare with, whose tokenizer reads the data; None takes teacher and tokenizer of the
            recipe.
        evaluation: its batches times its batch size are the rows at most; None takes those of the recipe.

    Raises:
        EdgeRazorError: the model, the teacher or the data cannot be loaded, or they do not fit each other.
    """
    runtime = open_exported(path, registry=registry)
    try:
        recipe = load_recipe(dict(runtime.recipe), registry=registry) if runtime.recipe else None
        if recipe is None and (data is None or teacher is None):
            raise DataError(
                f"{path}: holds no recipe, as no file of another tool does; "
                "give a file to evaluate on with --data, and its 16-bit model with --teacher"
            )
        section = held_out_section(path, recipe.data if recipe else None, data)
        model = recipe.model if recipe else ModelSection(name_or_path=str(teacher))
        evaluation = evaluation or (recipe.evaluation if recipe else EvaluationSection())
        device = pick_device(use_cpu=recipe is not None and recipe.training.use_cpu)
        if isinstance(runtime, ClassifierRuntime):
            return _of_pictures(
                path, runtime, model, section, teacher=teacher, evaluation=evaluation, device=device, registry=registry
            )
        theirs = open_teacher(path, model, teacher, vocabulary=runtime.vocabulary_size, registry=registry)
        tokenizer = _load_tokenizer(model, theirs)
        _check_tokens(runtime, tokenizer, path)
        dataset = load_held_out(section, tokenizer)
        loaded: Any = theirs.load_teacher(device=device)
        rows = None if evaluation.batches is None else evaluation.batches * evaluation.batch_size
        return evaluate_runtime(runtime, TransformersRuntime(loaded, tokenizer), dataset, rows=rows)
    finally:
        runtime.close()


def _of_pictures(
    path: Path,
    runtime: ClassifierRuntime,
    model: ModelSection,
    section: DataSection,
    *,
    teacher: str | None,
    evaluation: EvaluationSection,
    device: torch.device,
    registry: Registry,
) -> EvaluationResult:
    """Figures of a classifier, whose image processor lies beside it."""
    source = ModelSource(str(path), registry=registry, family=model.family)
    theirs = open_teacher(path, model, teacher, vocabulary=runtime.classes, registry=registry)
    task = task_of(section, source, source.adapter.facts(source.config), source.config)
    loaded: Any = theirs.load_teacher(device=device)
    rows = measured_rows(task.load(section))
    return evaluate_classifier(
        runtime, loaded, rows, task.collator, batch_size=evaluation.batch_size, batches=evaluation.batches
    )


def _load_tokenizer(model: ModelSection, teacher: Models) -> PreTrainedTokenizerBase:
    """The tokenizer that the recipe names beside its models, or the one of a teacher."""
    named_by_recipe = model.tokenizer is not None and teacher.teacher.name == model.teacher_name
    return (Models(model, teacher.registry).student if named_by_recipe else teacher.teacher).tokenizer


def _check_tokens(runtime: Runtime, tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    text = "It's 12 o'clock;\n    naïve = [x for x in range(10)]\n"
    if list(tokenizer(text)["input_ids"]) != runtime.encode(text, chat=False):
        raise PlanError(
            f"{tokenizer.name_or_path}: its tokenizer splits text otherwise than the one of {path}; "
            "give another --teacher"
        )


def _documents(row: Mapping[str, Any]) -> Iterator[tuple[list[int], list[int]]]:
    """Token ids and labels of each document that was packed into a row."""
    ids, labels = list(row["input_ids"]), list(row["labels"])
    for document in document_slices(row):
        yield ids[document], labels[document]


def _predictions(
    runtime: Runtime, teacher: Runtime | None, ids: list[int], labels: list[int]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64] | None, NDArray[np.intp]]]:
    """Log probabilities `[n, vocabulary]` of both models and the tokens that came next, some positions at a time."""
    runtime.restart()
    if teacher is not None:
        teacher.restart()
    for start in range(0, len(ids) - 1, _CHUNK):
        chunk = ids[start : start + _CHUNK]
        following = np.array([*labels[start + 1 : start + 1 + len(chunk)], IGNORE_INDEX][: len(chunk)])
        chosen = following != IGNORE_INDEX
        ours = log_softmax(runtime.feed(chunk, every=True)[chosen])
        theirs = None if teacher is None else log_softmax(teacher.feed(chunk, every=True)[chosen])
        yield ours, theirs, following[chosen]
