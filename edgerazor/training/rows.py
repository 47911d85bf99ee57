"""The rows of a run: what it asks of them, and what they say of the student."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import TrainingArguments

from edgerazor.data import Data
from edgerazor.data.turn_ends import turn_ends
from edgerazor.distill import Distiller
from edgerazor.errors import DataError
from edgerazor.models.positions import check_positions
from edgerazor.models.special_tokens import settle_special_tokens
from edgerazor.schemas.recipe import Recipe

_LOG = logging.getLogger(__name__)


@contextmanager
def errors_of_workers() -> Iterator[None]:
    """Raise a DataError of a process that reads rows as it was raised there; torch makes its traceback the message."""
    try:
        yield
    except DataError as error:
        if not str(error).startswith("Caught DataError"):
            raise
        raise DataError(str(error).rpartition(f"{DataError.__module__}.DataError: ")[2].strip()) from error


def check_rows(data: Data, arguments: TrainingArguments, config: Any) -> None:
    """Check that there are enough rows for a batch and that the model has positions for the longest.

    Raises:
        DataError: there are fewer rows than one batch holds.
        PlanError: one is longer than the model's positions.
    """
    note = check_positions(config, data.usage.longest, "the longest row has")
    if note is not None:
        _LOG.warning(note)
    needed = arguments.per_device_train_batch_size * arguments.world_size if arguments.dataloader_drop_last else 1
    if len(data.train) < needed:
        raise DataError(
            f"data.sources give {len(data.train)} rows, fewer than one batch of {needed}; add data, lower "
            "training.per_device_train_batch_size, or set training.dataloader_drop_last: false"
        )


def check_labels(recipe: Recipe, distiller: Distiller, data: Data) -> None:
    """Check that what reads labels finds some.

    Raises:
        DataError: no row has a label, but the task is part of the loss; or a loss reads the label of every row, and
            some have none.
    """
    if data.usage.labels == 0 and distiller.task_weight > 0:
        raise DataError("data.sources hold no labels to learn the task from; set distillation.task_weight: 0")
    readers = [name for name, loss in distiller.named() if loss.reads_labels]
    if readers and recipe.data is not None and recipe.data.task != "language_modeling":
        missing = len(data.train) - data.usage.labels
        if missing:
            raise DataError(f"{', '.join(readers)} reads the label of every row, but {missing} have none")


def settle_student(student: Any, tokenizer: Any, data: Data) -> None:
    """Make the student's special tokens agree; what ends the turns of its data ends a text. Changes are logged.

    A model that writes no texts has none.
    """
    if not student.can_generate():
        return
    for note in settle_special_tokens(student, tokenizer, ends=turn_ends(data.train, tokenizer)):
        _LOG.warning(note)
