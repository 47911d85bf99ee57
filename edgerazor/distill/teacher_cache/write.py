"""`cache_teacher`: run the teacher over the training data once and keep its likeliest tokens."""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edgerazor.core.claims import claimed
from edgerazor.core.contracts import ArchitectureAdapter
from edgerazor.core.outputs import Targets
from edgerazor.core.registry import Registry
from edgerazor.data import Collator, Data, load_data
from edgerazor.data.clock import fix_date
from edgerazor.data.progress import show_progress
from edgerazor.distill import Distiller
from edgerazor.distill.teacher_cache.folder import date_of, finish_folder, prepare_folder, write_whole
from edgerazor.distill.teacher_cache.format import (
    COLUMNS,
    DIGEST,
    SHARD_ROWS,
    Manifest,
    content_digest,
    data_digest,
    row_digest,
    shard_name,
)
from edgerazor.distill.teacher_cache.read import check_losses, teacher_of
from edgerazor.errors import RecipeError
from edgerazor.kernels.cached_teacher import TopTokens, top_tokens
from edgerazor.kernels.fused_linear import TeacherLogits
from edgerazor.kernels.projection import chunk_rows
from edgerazor.models.load import Models, pick_device
from edgerazor.schemas.recipe import Recipe


@dataclass(frozen=True)
class CacheResult:
    """What was written: rows of training data, predicted positions, bytes, and shards that were there already."""

    folder: Path
    rows: int
    positions: int
    bytes: int
    kept_shards: int


def cache_teacher(
    recipe: Recipe,
    *,
    registry: Registry,
    output: Path,
    top_k: int = 64,
    batch_size: int = 8,
) -> CacheResult:
    """Write the cache that `distillation.teacher_cache` names.

    An interrupted call goes on where it stopped; what another recipe wrote into the folder is refused.

    Args:
        recipe: with `data` and `distillation`; the temperatures of its losses are what the cache serves.
        top_k: tokens kept per position.
        batch_size: rows per forward pass of the teacher.

    Raises:
        RecipeError: a section is missing, `top_k` is larger than the vocabulary, or the folder holds something else.
        PlanError: a loss needs more of the teacher than a cache holds.
        CheckpointError: the folder cannot be written, for example because the disk is full.
        OutputError: another process writes into the folder.
    """
    models = Models(recipe.model, registry)
    with claimed(output, inside=True):
        data, wanted = _wanted(recipe, models, top_k, date_of(output))
        prepare_folder(output, wanted)
        writer = _Writer(data.train, wanted, output, batch_size)
        kept = writer.finished()
        if len(kept) < wanted.shards:
            device = pick_device(use_cpu=recipe.training.use_cpu)
            teacher = models.load_teacher(device=device)
            with show_progress("Caching the teacher", wanted.shards) as advance:
                for index in range(wanted.shards):
                    if index not in kept:
                        writer.write(index, teacher, models.teacher_adapter, device)
                    advance(1)
        finish_folder(output, wanted)
    size = sum(path.stat().st_size for path in output.iterdir())
    return CacheResult(output, wanted.rows, wanted.positions, size, len(kept))


def _wanted(recipe: Recipe, models: Models, top_k: int, earlier: datetime.date | None) -> tuple[Data, Manifest]:
    """The training data, and what the finished cache will say of itself."""
    if recipe.data is None or recipe.distillation is None:
        missing = "data" if recipe.data is None else "distillation"
        raise RecipeError(f"{missing}: the recipe has no such section, and a teacher cache is made for it")
    models.check_vocabularies()
    name, revision = teacher_of(recipe.model)
    vocabulary = models.teacher.vocabulary_size
    if not 1 <= top_k <= vocabulary:
        raise RecipeError(f"top_k is {top_k}; the teacher has {vocabulary} tokens to keep")
    distiller = Distiller.from_recipe(
        recipe.distillation,
        registry=models.registry,
        adapter=models.student.adapter,
        teacher_adapter=models.teacher_adapter,
    )
    if not distiller.fused.temperatures:
        raise RecipeError("distillation.losses: none is a forward or reverse KL of logits, so nothing can be cached")
    check_losses(distiller)
    section = fix_date(recipe.data, models.student.tokenizer, earlier=earlier)
    data = load_data(section, models.student.tokenizer, vocabulary_size=vocabulary)
    wanted = Manifest(
        teacher=name,
        revision=revision,
        vocabulary_size=vocabulary,
        top_k=top_k,
        temperatures=tuple(sorted(distiller.fused.temperatures)),
        rows=len(data.train),
        positions=data.usage.labels,
        shard_rows=SHARD_ROWS,
        data_digest=data_digest([row_digest(row) for row in data.train]),
        date=section.date,
    )
    return data, wanted


class _Writer:
    def __init__(self, dataset: Any, manifest: Manifest, folder: Path, batch_size: int):
        self.dataset, self.manifest, self.folder, self.batch_size = dataset, manifest, folder, batch_size

    def finished(self) -> set[int]:
        """Shards that an earlier call wrote."""
        return {index for index in range(self.manifest.shards) if self._is_whole(index)}

    def _is_whole(self, index: int) -> bool:
        path = self.folder / shard_name(index)
        digests = (row_digest(self.dataset[row]) for row in self.manifest.rows_of(index))
        return path.exists() and self.manifest.shard_is_whole(path, list(digests))

    def write(self, index: int, teacher: nn.Module, adapter: ArchitectureAdapter, device: torch.device) -> None:
        """Make one shard; it appears under its name when it is whole."""
        rows = [self.dataset[row] for row in self.manifest.rows_of(index)]
        parts, counts = [], []
        for start in range(0, len(rows), self.batch_size):
            tokens, per_row = self._batch(rows[start : start + self.batch_size], teacher, adapter, device)
            parts.append(tokens)
            counts += per_row
        columns = {name: torch.cat([getattr(part, name) for part in parts]).cpu() for name in TopTokens._fields}
        # Below the smallest float16, infinity times probability 0 would be no number.
        columns["log_probabilities"] = columns["log_probabilities"].clamp(min=-60000).to(torch.float16)
        digests = np.frombuffer(b"".join(row_digest(row) for row in rows), dtype=np.uint8)
        columns["digests"] = torch.from_numpy(digests.reshape(len(rows), -1).copy())
        columns["offsets"] = torch.tensor([0, *counts]).cumsum(0)
        whole = {key: value.contiguous() for key, value in columns.items()}
        digest = {DIGEST: content_digest(whole[name].numpy() for name in COLUMNS)}
        write_whole(self.folder / shard_name(index), lambda part: save_file(whole, part, digest))

    @torch.no_grad()
    def _batch(
        self, rows: list[Any], teacher: nn.Module, adapter: ArchitectureAdapter, device: torch.device
    ) -> tuple[TopTokens, list[int]]:
        batch = {key: value.to(device) for key, value in Collator(0)(rows).items()}
        targets = Targets.from_labels(batch["labels"])
        positions = batch["prediction_rows"]
        output = adapter.forward(teacher, batch, frozenset())
        assert output.final_hidden is not None and output.head is not None
        projection = output.head.projection(output.final_hidden, positions, autocast=False)
        labels = targets.next_labels().flatten()[positions]
        chunk = chunk_rows(len(labels), len(projection.weight), projection.weight.device)
        parts = list(self._chunks(TeacherLogits(projection, chunk), labels))
        joined = TopTokens(*(torch.cat(column) for column in zip(*parts, strict=True)))
        return joined, targets.predictions.mask.sum(dim=-1).tolist()

    def _chunks(self, logits: TeacherLogits, labels: Tensor) -> Iterator[TopTokens]:
        for start in range(0, max(len(labels), 1), logits.chunk):
            rows = slice(start, start + logits.chunk)
            yield top_tokens(logits.rows(rows), labels[rows], self.manifest.top_k, self.manifest.temperatures)
