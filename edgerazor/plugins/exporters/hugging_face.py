"""Folders laid out as those of the Hugging Face hub, in which several formats keep their models: safetensors in
shards, configuration, tokenizer, and a card that says what made the folder.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from edgerazor.core.contracts import Checkpoint
from edgerazor.core.tensor_files import INDEX, WEIGHTS, Header, open_tensors, read_headers, weight_files
from edgerazor.core.tensor_spool import TensorSpool
from edgerazor.errors import CheckpointError, ExportError, first_line
from edgerazor.plugins.exporters.common import (
    CHAT_TEMPLATE,
    CHAT_TEMPLATES,
    DIGEST,
    TOKENIZER,
    TOKENIZER_CONFIG,
    describe_origin,
    read_json,
    write_json,
)
from edgerazor.schemas.components import ExporterParams
from edgerazor.version import __version__

SHARD_BYTES = 5_000_000_000
CONFIG, GENERATION, PREPROCESSOR = "config.json", "generation_config.json", "preprocessor_config.json"
_COPIED = (
    GENERATION,
    TOKENIZER,
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    CHAT_TEMPLATE,
    PREPROCESSOR,
)
COMPANIONS = frozenset({CONFIG, CHAT_TEMPLATES, *_COPIED})
# Without the card, whose name tells formats apart.
FILES = frozenset({WEIGHTS, INDEX, "model-*-of-*.safetensors", *COMPANIONS})


class ShardWriter:
    """Writes `model.safetensors`, or numbered shards with an index, a tensor at a time; none stays in memory.

    As a context manager; the files are there once the block has ended well.

    Args:
        folder: exists.
        checkpoint: what made the tensors, which every file says in its metadata.
        shard_bytes: most bytes of tensors in a file; a single tensor may be larger.
    """

    def __init__(self, folder: Path, checkpoint: Checkpoint, shard_bytes: int = SHARD_BYTES):
        self._folder, self._metadata, self._limit = folder, describe_origin(checkpoint), shard_bytes
        self._stack = ExitStack()
        self._spool, self._held = self._stack.enter_context(TensorSpool(folder)), 0
        self._shards: list[tuple[Path, Mapping[str, int]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if kind is None:
                self._close_shard()
                self._name_shards()

    def add(self, tensors: Mapping[str, Tensor]) -> None:
        """Write tensors by their names in the file.

        Raises:
            OSError: the disk is full.
        """
        for name, tensor in tensors.items():
            size = tensor.numel() * tensor.itemsize
            if self._held and self._held + size > self._limit:
                self._close_shard()
                self._spool, self._held = self._stack.enter_context(TensorSpool(self._folder)), 0
            self._spool.add({name: tensor})
            self._held += size

    def _close_shard(self) -> None:
        path = self._folder / f"shard-{len(self._shards) + 1}"
        self._spool.save(path, self._metadata)
        self._shards.append((path, self._spool.sizes))
        self._stack.close()  # what was spooled would take its room on the disk twice

    def _name_shards(self) -> None:
        if len(self._shards) == 1:
            self._shards[0][0].rename(self._folder / WEIGHTS)
            return
        places: dict[str, str] = {}
        for number, (path, sizes) in enumerate(self._shards, 1):
            name = f"model-{number:05d}-of-{len(self._shards):05d}.safetensors"
            path.rename(self._folder / name)
            places.update(dict.fromkeys(sizes, name))
        total = sum(size for _, sizes in self._shards for size in sizes.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        write_json(self._folder / INDEX, index)


class ExportedTensors:
    """The tensors of a folder, read one at a time.

    Args:
        folder: with `model.safetensors` or shards.

    Attributes:
        headers: shape, dtype and file of every tensor.
        digests: those that the files say their content has; one in a sound export.

    Raises:
        ExportError: files are missing, cut off or no safetensors.
    """

    def __init__(self, folder: Path):
        try:
            files = weight_files(folder)
            self.headers: Mapping[str, Header] = read_headers(files)
            self.digests: set[str] = set()
            for file in files:
                with open_tensors(file) as opened:
                    self.digests.add((opened.metadata() or {}).get(DIGEST, ""))
        except CheckpointError as error:
            raise ExportError(str(error)) from error

    def read(self, name: str) -> Tensor | None:
        """A tensor by its name; None if there is none.

        Raises:
            ExportError: its bytes cannot be read.
        """
        header = self.headers.get(name)
        if header is None:
            return None
        try:
            with open_tensors(header.file) as opened:
                tensor: Tensor = opened.get_tensor(name)
        except Exception as error:  # safetensors and torch have exceptions of their own
            raise ExportError(f"{header.file}: {name}: cannot be read: {first_line(error)}") from error
        return tensor


def copied_files(folder: Path) -> list[str]:
    """Names of the files of a checkpoint that lie unchanged in an export: of generation, tokenizer, image processor."""
    templates = sorted((folder / CHAT_TEMPLATES).glob("*.jinja"))
    return [
        *(name for name in _COPIED if (folder / name).is_file()),
        *(f"{CHAT_TEMPLATES}/{path.name}" for path in templates),
    ]


def write_companions(folder: Path, checkpoint: Checkpoint, changes: Mapping[str, Any]) -> None:
    """Configuration, generation settings, tokenizer and chat templates.

    Args:
        folder: exists.
        checkpoint: they are its.
        changes: as for `exported_config`.
    """
    write_json(folder / CONFIG, exported_config(checkpoint, changes))
    for name in copied_files(checkpoint.folder):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(checkpoint.folder / name, folder / name)


def exported_config(checkpoint: Checkpoint, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The content of config.json without our own `quantization_config`.

    Args:
        checkpoint: whose configuration it is.
        changes: values of keys; those of which the configuration of an inner model has one too are changed there, too.
    """
    config = {key: value for key, value in checkpoint.config.items() if key != "quantization_config"}
    for key, inner in config.items():
        if isinstance(inner, Mapping) and key.endswith("_config"):
            config[key] = {**inner, **{name: value for name, value in changes.items() if name in inner}}
    return {**config, **changes}


def different_companions(folder: Path, checkpoint: Checkpoint, changes: Mapping[str, Any]) -> Iterator[str]:
    """Names of copied files and keys of config.json that are not what `write_companions` writes.

    Raises:
        ExportError: config.json is missing or damaged.
    """
    expected, found = exported_config(checkpoint, changes), read_json(folder / CONFIG)
    yield from (f"{CONFIG}: {key}" for key in sorted({*expected, *found}) if expected.get(key) != found.get(key))
    yield from different_copies(folder, checkpoint)


def different_copies(folder: Path, checkpoint: Checkpoint) -> Iterator[str]:
    """Names of the files of generation and tokenizer that are not those of the checkpoint."""
    for name in copied_files(checkpoint.folder):
        ours, theirs = folder / name, checkpoint.folder / name
        if not ours.is_file() or ours.read_bytes() != theirs.read_bytes():
            yield name


def describe_card(checkpoint: Checkpoint, params: ExporterParams) -> dict[str, Any]:
    """What made a folder: version of the package, digest of the content, recipe, and parameters of the exporter."""
    return {
        "version": __version__,
        "content_sha256": checkpoint.digest,
        "recipe": dict(checkpoint.recipe),
        "settings": params.model_dump(mode="json", exclude={"name", "path"}),
    }


def read_settings(card: Path) -> Mapping[str, Any]:
    """The parameters in a card.

    Raises:
        ExportError: it is missing or damaged.
    """
    settings = read_json(card).get("settings")
    if not isinstance(settings, dict):
        raise ExportError(f"{card}: settings: expected parameters with values")
    return settings
