"""`cache_teacher`: run the teacher over the training data once and keep its likeliest tokens."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edgerazor.core.contracts import ArchitectureAdapter
from edgerazor.core.outputs import Targets
from edgerazor.core.registry import Registry
from edgerazor.errors import CheckpointError, RecipeError
from edgerazor.kernels.cached_teacher import TopTokens, top_tokens
from edgerazor.kernels.fused_linear import TeacherLogits, chunk_rows
from edgerazor.pipeline.data import Collator, load_data
from edgerazor.pipeline.data.progress import show_progress
from edgerazor.pipeline.model import (
    check_vocabularies,
    load_config,
    load_teacher,
    load_tokenizer,
    pick_device,
    teacher_adapter_for,
)
from edgerazor.pipeline.teacher_cache.format import MANIFEST, SHARD_ROWS, Manifest, row_digest, shard_name
from edgerazor.schemas.recipe import Recipe

BEGUN = ".begun.json"


@dataclass(frozen=True)
class CacheReport:
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
) -> CacheReport:
    """Write the cache that `distillation.teacher_cache` names.

    An interrupted call goes on where it stopped; what another recipe wrote into the folder is refused.

    Args:
        recipe: with `data` and `distillation`; the temperatures of its losses are what the cache serves.
        top_k: tokens kept per position.
        batch_size: rows per forward pass of the teacher.

    Raises:
        RecipeError: a section is missing, `top_k` is larger than the vocabulary, or the folder holds something else.
    """
    if recipe.data is None or recipe.distillation is None:
        raise RecipeError("a teacher cache is made for the data and distillation sections; the recipe lacks one")
    check_vocabularies(recipe.model)
    name = recipe.model.teacher or recipe.model.name_or_path
    config = load_config(recipe.model, name=name)
    vocabulary = config.get_text_config().vocab_size
    if not 1 <= top_k <= vocabulary:
        raise RecipeError(f"top_k is {top_k}; the teacher has {vocabulary} tokens to keep")
    temperatures = tuple(
        sorted({loss.temperature for loss in recipe.distillation.losses if hasattr(loss, "temperature")})
    )
    if not temperatures:
        raise RecipeError("distillation.losses: none compares logits, so there is nothing to cache")
    data = load_data(recipe.data, load_tokenizer(recipe.model), vocabulary_size=vocabulary)
    digests = [row_digest(row) for row in data.train]
    wanted = Manifest(
        teacher=name,
        vocabulary_size=vocabulary,
        top_k=top_k,
        temperatures=temperatures,
        rows=len(digests),
        positions=data.usage.labels,
        data_digest=hashlib.blake2b(b"".join(digests), digest_size=16).hexdigest(),
    )
    _prepare(output, wanted)
    writer = _Writer(data.train, wanted, output, batch_size)
    kept = writer.finished()
    if len(kept) < writer.shards:
        device = pick_device()
        teacher = load_teacher(recipe.model, device=device)
        adapter = teacher_adapter_for(recipe.model, registry)
        with show_progress("Caching the teacher", writer.shards) as advance:
            for index in range(writer.shards):
                if index not in kept:
                    writer.write(index, teacher, adapter, device)
                advance(1)
    _replace_text(output / MANIFEST, wanted.model_dump_json(indent=1) + "\n")
    (output / BEGUN).unlink(missing_ok=True)
    size = sum(path.stat().st_size for path in output.iterdir())
    return CacheReport(output, wanted.rows, wanted.positions, size, len(kept))


class _Writer:
    def __init__(self, dataset: Any, manifest: Manifest, folder: Path, batch_size: int):
        self.dataset, self.manifest, self.folder, self.batch_size = dataset, manifest, folder, batch_size
        self.shards = -(-len(dataset) // SHARD_ROWS)

    def finished(self) -> set[int]:
        """Shards that an earlier call wrote."""
        return {index for index in range(self.shards) if self._fits(index)}

    def _rows(self, index: int) -> range:
        return range(index * SHARD_ROWS, min((index + 1) * SHARD_ROWS, len(self.dataset)))

    def _fits(self, index: int) -> bool:
        path = self.folder / shard_name(index)
        if not path.exists():
            return False
        digests = load_file(path)["digests"].numpy()
        return [bytes(row) for row in digests] == [row_digest(self.dataset[row]) for row in self._rows(index)]

    def write(self, index: int, teacher: nn.Module, adapter: ArchitectureAdapter, device: torch.device) -> None:
        """Make one shard; it appears under its name when it is whole."""
        rows = [self.dataset[row] for row in self._rows(index)]
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
        temporary = self.folder / f".{shard_name(index)}.{os.getpid()}"
        try:
            save_file({key: value.contiguous() for key, value in columns.items()}, temporary)
            temporary.replace(self.folder / shard_name(index))
        finally:
            temporary.unlink(missing_ok=True)

    @torch.no_grad()
    def _batch(
        self, rows: list[Any], teacher: nn.Module, adapter: ArchitectureAdapter, device: torch.device
    ) -> tuple[TopTokens, list[int]]:
        batch = {key: value.to(device) for key, value in Collator(0)(rows).items()}
        targets = Targets.from_labels(batch["labels"])
        mask = targets.predictions.mask
        positions = mask.flatten().nonzero().squeeze(-1)
        output = adapter.forward(teacher, batch, frozenset())
        assert output.final_hidden is not None and output.head is not None
        projection = output.head.projection(output.final_hidden, positions, autocast=False)
        labels = targets.next_labels().flatten()[positions]
        parts = list(self._chunks(TeacherLogits(projection, chunk_rows(len(labels), len(projection.weight))), labels))
        joined = TopTokens(*(torch.cat(column) for column in zip(*parts, strict=True)))
        return joined, mask.sum(dim=-1).tolist()

    def _chunks(self, logits: TeacherLogits, labels: Tensor) -> Iterator[TopTokens]:
        for start in range(0, max(len(labels), 1), logits.chunk):
            rows = slice(start, start + logits.chunk)
            yield top_tokens(logits.rows(rows), labels[rows], self.manifest.top_k, self.manifest.temperatures)


def _prepare(output: Path, wanted: Manifest) -> None:
    """The folder, empty or begun by the same call."""
    output.mkdir(parents=True, exist_ok=True)
    for path in (output / MANIFEST, output / BEGUN):
        if path.exists():
            try:
                found = Manifest.model_validate_json(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise CheckpointError(f"{path}: is no description of a teacher cache: {error}") from error
            different = [key for key, value in wanted if getattr(found, key) != value]
            if different:
                said = ", ".join(f"{key} {getattr(found, key)} instead of {getattr(wanted, key)}" for key in different)
                raise RecipeError(f"{output}: holds another teacher cache ({said}); choose another folder")
            return
    if any(output.iterdir()):
        raise RecipeError(f"{output}: is not empty and holds no teacher cache; choose another folder")
    _replace_text(output / BEGUN, json.dumps(wanted.model_dump(mode="json")))


def _replace_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
