"""Reading a teacher cache: the likeliest tokens of a batch, found by the number of its rows."""

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from edgerazor.core.contracts import WeighsDivergences
from edgerazor.data import Collator
from edgerazor.distill import Distiller
from edgerazor.distill.teacher_cache.format import MANIFEST, Manifest, data_digest, row_digest, shard_name
from edgerazor.errors import CheckpointError, DataError, PlanError
from edgerazor.kernels.cached_teacher import TopTokens
from edgerazor.schemas.model import ModelSection

ROW = "row"
PREFIX = "teacher_"


class TeacherCache:
    """A finished cache; opened anew in every process that reads it.

    Raises:
        CheckpointError: the folder holds no finished cache.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        path = folder / MANIFEST
        if not path.exists():
            raise CheckpointError(f"{folder}: holds no finished teacher cache; make it with: edgerazor cache-teacher")
        try:
            self.manifest = Manifest.model_validate_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CheckpointError(f"{path}: is no description of a teacher cache: {error}") from error
        self._open: dict[int, Any] = {}

    def check_recipe(self, distiller: Distiller, vocabulary_size: int, model: ModelSection) -> None:
        """Compare with a recipe, which takes no data.

        Raises:
            PlanError: another teacher, a loss that needs more than the cache holds, or another temperature.
        """
        name, revision = teacher_of(model)
        ours = f"{name} (revision {revision})" if revision else name
        theirs = f"{self.manifest.teacher} (revision {self.manifest.revision})"
        theirs = theirs if self.manifest.revision else self.manifest.teacher
        if revision != self.manifest.revision or not _same_model(name, self.manifest.teacher):
            raise PlanError(
                f"{self.folder}: was made by the teacher {theirs}, and the recipe's is {ours}; make it again, or name "
                f"the former in model.teacher. If it has only moved, correct 'teacher' in {MANIFEST}"
            )
        check_losses(distiller)
        cached = self.manifest.temperatures
        missing = [temperature for temperature in distiller.fused.temperatures if temperature not in cached]
        if missing:
            raise PlanError(
                f"{self.folder}: was made for temperatures {list(self.manifest.temperatures)}, not for {missing}; "
                "make it again with this recipe"
            )
        if self.manifest.vocabulary_size != vocabulary_size:
            raise PlanError(
                f"{self.folder}: its teacher has {self.manifest.vocabulary_size} tokens, the student {vocabulary_size}"
            )

    def check_rows(self, dataset: Any, *, date: datetime.date | None = None) -> None:
        """Compare with the training data of a run, made with the recipe's `data.date`.

        Raises:
            DataError: they are not those of the cache.
            CheckpointError: a file of the cache is missing or damaged.
        """
        if date != self.manifest.date:
            raise DataError(
                f"{self.folder}: its chat template was told the date {self.manifest.date}, and the recipe's data.date "
                f"is {date}; set data.date: {self.manifest.date or 'null'}, or make the cache again"
            )
        digests = [row_digest(row) for row in dataset]
        if (len(digests), data_digest(digests)) != (self.manifest.rows, self.manifest.data_digest):
            raise DataError(
                f"{self.folder}: was made for {self.manifest.rows} other rows of training data: something in the data "
                "section (sources, ratios, seed, sequence_length, packing, held_out) or the tokenizer is another; "
                "make it again"
            )
        shards = {
            shard_name(index): [digests[row] for row in self.manifest.rows_of(index)]
            for index in range(self.manifest.shards)
        }
        bad = [name for name, rows in shards.items() if not self.manifest.shard_is_whole(self.folder / name, rows)]
        if bad:
            raise CheckpointError(
                f"{self.folder}: {', '.join(bad[:5])} ({len(bad)} of {len(shards)} files) missing or damaged; the same "
                "call of edgerazor cache-teacher makes those again"
            )

    def tokens(self, rows: Sequence[int], temperatures: tuple[float, ...]) -> dict[str, Tensor]:
        """Columns of `TopTokens` for the predicted positions of some rows, one row after the other."""
        parts = [self._row(row) for row in rows]
        columns = {name: torch.cat([part[name] for part in parts]) for name in TopTokens._fields}
        order = [self.manifest.temperatures.index(temperature) for temperature in temperatures]
        columns["log_rest"] = columns["log_rest"][:, order]
        return columns

    def _row(self, row: int) -> dict[str, Tensor]:
        shard, inside = divmod(row, self.manifest.shard_rows)
        if shard not in self._open:
            self._open[shard] = safe_open(self.folder / shard_name(shard), framework="pt")
        file = self._open[shard]
        start, end = file.get_slice("offsets")[inside : inside + 2].tolist()
        return {name: file.get_slice(name)[start:end] for name in TopTokens._fields}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}


def check_losses(distiller: Distiller) -> None:
    """Raise PlanError if a loss compares with more of the teacher than a cache holds."""
    for name, loss in distiller.named():
        if loss.teacher_signals and not isinstance(loss, WeighsDivergences):
            raise PlanError(
                f"{name}: compares more than forward and reverse KL, for which a teacher has to run; "
                "drop the loss or distillation.teacher_cache"
            )


def teacher_of(model: ModelSection) -> tuple[str, str | None]:
    """Name and revision of the teacher."""
    return model.teacher_name, model.revision_of(model.teacher_name)


def _same_model(name: str, other: str) -> bool:
    return name == other or (Path(name).exists() and Path(name).resolve() == Path(other).resolve())


class CachedTeacherCollator(Collator):
    """Batches with the teacher's tokens in them, under names that begin with `teacher_`.

    Args:
        cache: of the training data.
        temperatures: of the losses, in their order.
    """

    def __init__(self, pad_token_id: int, cache: TeacherCache, temperatures: tuple[float, ...]):
        super().__init__(pad_token_id)
        self.cache, self.temperatures = cache, temperatures

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        batch = super().__call__(rows)
        if all(ROW in row for row in rows):
            columns = self.cache.tokens([int(row[ROW]) for row in rows], self.temperatures)
            batch |= {f"{PREFIX}{name}": column for name, column in columns.items()}
        return batch


def numbered(dataset: Any) -> Any:
    """The dataset with the number of each row, by which the cache finds it."""
    return dataset.add_column(ROW, np.arange(len(dataset)))


def cached_tokens(batch: Mapping[str, Any]) -> TopTokens | None:
    """The teacher's tokens of a batch; None if it has none."""
    if f"{PREFIX}{TopTokens._fields[0]}" not in batch:
        return None
    return TopTokens(*(batch[f"{PREFIX}{name}"] for name in TopTokens._fields))
