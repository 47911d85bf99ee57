"""The rows of a run: what it asks of them, and what they say of the student."""

import logging
from typing import Any

from transformers import TrainingArguments

from edgerazor.data import Data
from edgerazor.data.turn_ends import turn_ends
from edgerazor.errors import DataError
from edgerazor.models.positions import check_positions
from edgerazor.models.special_tokens import settle_special_tokens

_LOG = logging.getLogger(__name__)


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


def settle_student(student: Any, tokenizer: Any, data: Data) -> None:
    """Make the student's special tokens agree; what ends the turns of its data ends a text. Changes are logged."""
    for note in settle_special_tokens(student, tokenizer, ends=turn_ends(data.train, tokenizer)):
        _LOG.warning(note)
