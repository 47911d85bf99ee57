"""The files of a packed checkpoint against its manifest, while it is loaded: on a thread of its own."""

import logging
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from edgerazor.checkpoint.manifest import Manifest, manifest_fault, read_manifest
from edgerazor.checkpoint.section import MANIFEST
from edgerazor.errors import CheckpointError, first_line

_LOG = logging.getLogger(__name__)
# People write the card of a model on a hub, and nothing is loaded from it.
CARD = "README.md"


class FileCheck:
    """Reads the files of a packed folder and compares them with `edgerazor.json`, from now until `finish`.

    Args:
        folder: of the files; in the cache of a hub it may hold some of them only.
        manifest: what the folder says about its files.
        needed: names of files that are loaded and so must be listed.
    """

    def __init__(self, folder: Path, manifest: Manifest, needed: Iterable[str] = ()):
        self.folder = folder
        self._unlisted = [name for name in needed if name not in manifest.files]
        executor = ThreadPoolExecutor(1, thread_name_prefix="edgerazor-digests")
        self._faults: Future[list[str]] = executor.submit(self._compare, manifest)
        executor.shutdown(wait=False)

    def finish(self) -> None:
        """Wait for the rest.

        Raises:
            CheckpointError: with one line for each file that is not what was written.
        """
        faults = [f"{name}: is not listed in {MANIFEST}" for name in self._unlisted] + self._faults.result()
        if faults:
            hint = "it is damaged, or was edited since; write it again, or load it as it is with verify=False"
            raise CheckpointError("\n".join(f"{self.folder / fault}; {hint}" for fault in faults))

    def _compare(self, manifest: Manifest) -> list[str]:
        here = {name: entry for name, entry in manifest.files.items() if (self.folder / name).exists() and name != CARD}
        found = {name: manifest_fault(self.folder / name, entry, compare="fast") for name, entry in here.items()}
        return [f"{name}: {fault}" for name, fault in found.items() if fault]


def check_small_files(folder: Path, manifest: Manifest) -> None:
    """Compare everything but the weights, before any of it is read.

    Raises:
        CheckpointError: as `FileCheck.finish`.
    """
    small = {name: entry for name, entry in manifest.files.items() if not name.endswith(".safetensors")}
    FileCheck(folder, manifest.model_copy(update={"files": small})).finish()


def check_loaded_files(files: Iterable[str], config: Any) -> FileCheck | None:
    """Begin to check files that transformers loads; None where no manifest belongs to them.

    Args:
        files: weights, of a folder or of the cache of a hub.
        config: of the model, as transformers read it.
    """
    paths = [Path(file) for file in files]
    if not paths:
        return None
    folder = paths[0].parent
    manifest = folder / MANIFEST
    if not manifest.exists():
        name, revision = getattr(config, "_name_or_path", ""), getattr(config, "_commit_hash", None)
        if revision is None:
            return None  # a folder that save_pretrained wrote
        found = _fetch_manifest(name, revision, cache=folder.parents[2])
        if found is None:
            return None
        manifest = found
    return FileCheck(folder, read_manifest(manifest.parent), [path.name for path in paths])


def _fetch_manifest(name: str, revision: str, *, cache: Path) -> Path | None:
    """The manifest of a hub model, into the cache that its weights are in; None where it cannot be had."""
    try:
        found = cached_file(
            name,
            MANIFEST,
            revision=revision,
            cache_dir=cache,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except OSError as error:  # of a private model, for example: the caller's token is not known here
        _LOG.warning("%s: its files are not compared with their digests: %s", name, first_line(error))
        return None
    return None if found is None else Path(found)
