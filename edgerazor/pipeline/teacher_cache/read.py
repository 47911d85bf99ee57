"""Reading a teacher cache: the likeliest tokens of a batch, found by the number of its rows."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from edgerazor.errors import CheckpointError, DataError, PlanError
from edgerazor.kernels.cached_teacher import TopTokens
from edgerazor.pipeline.data import Collator
from edgerazor.pipeline.distill import Distiller
from edgerazor.pipeline.teacher_cache.format import MANIFEST, SHARD_ROWS, Manifest, row_digest, shard_name

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

    def check(self, distiller: Distiller, dataset: Any, vocabulary_size: int) -> None:
        """Compare with a run before it starts.

        Raises:
            PlanError: a loss needs more than the cache holds, or another temperature.
            DataError: the training data are not those of the cache.
        """
        for name, loss in distiller.named():
            if not hasattr(loss, "divergence_weights"):
                raise PlanError(
                    f"{name}: compares more than forward and reverse KL, for which a teacher has to run; "
                    "drop the loss or distillation.teacher_cache"
                )
        missing = [one for one in distiller.fused.temperatures if one not in self.manifest.temperatures]
        if missing:
            raise PlanError(
                f"{self.folder}: was made for temperatures {list(self.manifest.temperatures)}, not for {missing}; "
                "make it again with this recipe"
            )
        if self.manifest.vocabulary_size != vocabulary_size:
            raise PlanError(
                f"{self.folder}: its teacher has {self.manifest.vocabulary_size} tokens, the student {vocabulary_size}"
            )
        digest = hashlib.blake2b(b"".join(row_digest(row) for row in dataset), digest_size=16).hexdigest()
        if (len(dataset), digest) != (self.manifest.rows, self.manifest.data_digest):
            raise DataError(
                f"{self.folder}: was made for {self.manifest.rows} other rows of training data; data.sources, their "
                "ratios, data.seed, the sequence length or the tokenizer have changed; make it again"
            )

    def tokens(self, rows: Sequence[int], temperatures: tuple[float, ...]) -> dict[str, Tensor]:
        """Columns of `TopTokens` for the predicted positions of some rows, one row after the other."""
        parts = [self._row(row) for row in rows]
        columns = {name: torch.cat([part[name] for part in parts]) for name in TopTokens._fields}
        order = [self.manifest.temperatures.index(temperature) for temperature in temperatures]
        columns["log_rest"] = columns["log_rest"][:, order]
        return columns

    def _row(self, row: int) -> dict[str, Tensor]:
        shard, inside = divmod(row, SHARD_ROWS)
        if shard not in self._open:
            self._open[shard] = safe_open(self.folder / shard_name(shard), framework="pt")
        file = self._open[shard]
        start, end = file.get_slice("offsets")[inside : inside + 2].tolist()
        return {name: file.get_slice(name)[start:end] for name in TopTokens._fields}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}


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
