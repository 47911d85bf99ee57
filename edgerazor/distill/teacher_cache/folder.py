"""The folder that a teacher cache is written to: begun, continued, finished, and never half a file."""

import datetime
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from edgerazor.core.atomic import is_partial, remove_abandoned, replaced
from edgerazor.core.claims import LOCK
from edgerazor.distill.teacher_cache.format import MANIFEST, Manifest
from edgerazor.errors import CheckpointError, RecipeError

BEGUN = ".begun.json"


def prepare_folder(folder: Path, wanted: Manifest) -> None:
    """Make the folder, or check that the one there was begun by the same call.

    Raises:
        RecipeError: it holds another cache, or something else.
        CheckpointError: its description cannot be read, or the folder cannot be written.
    """
    with _named(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for path in (folder / MANIFEST, folder / BEGUN):
        if path.exists():
            _check_same(path, wanted)
            return
    if not all(is_partial(path) or path.name == LOCK for path in folder.iterdir()):
        raise RecipeError(f"{folder}: is not empty and holds no teacher cache; choose another folder")
    write_description(folder / BEGUN, wanted)


def date_of(folder: Path) -> datetime.date | None:
    """The date of the cache in the folder, finished or begun; None: there is none, or it needs no date."""
    for path in (folder / MANIFEST, folder / BEGUN):
        with suppress(OSError, ValueError):
            return Manifest.model_validate_json(path.read_text(encoding="utf-8")).date
    return None


def finish_folder(folder: Path, manifest: Manifest) -> None:
    """Say that all shards are there."""
    write_description(folder / MANIFEST, manifest)
    remove_abandoned(folder)
    (folder / BEGUN).unlink(missing_ok=True)


def write_description(path: Path, manifest: Manifest) -> None:
    """The manifest as JSON."""
    write_whole(path, lambda part: part.write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8"))


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file beside `path`, which then takes its name.

    Raises:
        CheckpointError: it cannot be written, for example because the disk is full; nothing is left of it.
    """
    with _named(path), replaced(path) as part:
        write(part)


def _check_same(path: Path, wanted: Manifest) -> None:
    try:
        found = Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: is no description of a teacher cache: {error}") from error
    different = [key for key, value in wanted if getattr(found, key) != value]
    if different:
        said = ", ".join(f"{key} {getattr(found, key)} instead of {getattr(wanted, key)}" for key in different)
        raise RecipeError(f"{path.parent}: holds another teacher cache ({said}); choose another folder")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of the disk with the file they concern, and the way out."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CheckpointError(
            f"{path}: cannot be written: {reason}; what is finished stays, and the same call goes on with it"
        ) from error
