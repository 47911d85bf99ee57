"""Held-out figures of an exported image classifier, computed by the engine that runs it."""

import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgerazor.core.contracts import ClassifierRuntime
from edgerazor.data.rows import IGNORE_INDEX
from edgerazor.evaluate.checkpoints import EvaluationResult
from edgerazor.evaluate.logits import log_softmax

_LIKELIEST = 5


@torch.no_grad()
def evaluate_classifier(
    runtime: ClassifierRuntime, teacher: Any, dataset: Any, collator: Any, *, batch_size: int, batches: int | None
) -> EvaluationResult:
    """As `edgerazor.evaluate.checkpoints.evaluate_model`, through an engine.

    Args:
        runtime: the model.
        teacher: a classifier of transformers, compared with.
        dataset: rows of `edgerazor.data.images.load_images`.
        collator: makes batches of rows.
        batch_size: images at once.
        batches: at most this many; None is all.
    """
    sums, images, labelled, started = np.zeros(6), 0, 0, time.perf_counter()
    for start in range(0, len(dataset), batch_size)[:batches]:
        rows = [dataset[index] for index in range(start, min(start + batch_size, len(dataset)))]
        batch = collator(rows)
        pixels, labels = batch["pixel_values"], batch["labels"][:, 0].numpy()
        ours = log_softmax(runtime.classify(pixels.numpy()))
        theirs = log_softmax(teacher(pixel_values=pixels.to(teacher.device)).logits.float().cpu().numpy())
        sums += _sums(ours, theirs, labels)
        images, labelled = images + len(rows), labelled + int((labels != IGNORE_INDEX).sum())
    loss, top1, top5, teacher_loss = (float(value) / max(labelled, 1) for value in sums[:4])
    divergence, agreed = (float(value) / max(images, 1) for value in sums[4:])
    return EvaluationResult(
        loss=loss,
        bits_per_byte=None,
        kl_teacher=divergence,
        top1_agreement=agreed,
        tokens=images,
        teacher_loss=teacher_loss,
        tokens_per_second=images / max(time.perf_counter() - started, 1e-9),
        top1=top1,
        top5=top5,
    )


def _sums(ours: NDArray[np.float64], theirs: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Loss, right classes, right ones among five and the teacher's loss over labelled images; divergence and
    agreement over all."""
    known = labels != IGNORE_INDEX
    rows, right = np.flatnonzero(known), labels[known]
    ranks = (ours[rows] > ours[rows, right][:, None]).sum(axis=-1)
    return np.array(
        [
            -ours[rows, right].sum(),
            (ranks == 0).sum(),
            (ranks < _LIKELIEST).sum(),
            -theirs[rows, right].sum(),
            (np.exp(theirs) * (theirs - ours)).sum(),
            (ours.argmax(axis=-1) == theirs.argmax(axis=-1)).sum(),
        ],
        dtype=np.float64,
    )
