"""The rows of a run against what it asks of them."""

import logging
from typing import Any

from transformers import TrainingArguments

from edgerazor.data import Data
from edgerazor.errors import DataError
from edgerazor.models.positions import check_positions

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
