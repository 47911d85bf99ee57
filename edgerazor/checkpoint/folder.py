"""Writing a folder whole or not at all: a temporary folder beside the target is filled, then takes its place."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from edgerazor.checkpoint.manifest import files_in, read_manifest
from edgerazor.checkpoint.section import MANIFEST
from edgerazor.errors import CheckpointError


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder to fill; once the block ends well it replaces `folder`.

    On any failure nothing of it is left and what was at `folder` is untouched.

    Raises:
        CheckpointError: `folder` holds something other than a complete checkpoint of ours, or cannot be written.
    """
    target = folder.resolve()
    check_replaceable(target)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(target, "partial")
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            _sync(file)
        _sync(temporary)
        _put_in_place(temporary, target)
        temporary = None
        _sync(target.parent)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: cannot be written: {getattr(error, 'strerror', None) or error}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def check_replaceable(folder: Path) -> None:
    """Raise CheckpointError unless `folder` is absent, empty, or holds a complete checkpoint and nothing else;
    a file where a folder above it should be is named."""
    in_the_way = next((one for one in folder.parents if one.exists() and not one.is_dir()), None)
    if in_the_way is not None:
        raise CheckpointError(f"{folder}: cannot be written: {in_the_way} is a file, not a folder")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: is a file; expected a folder, or a name that is free")
    present = set(files_in(folder))
    ours = {MANIFEST, *read_manifest(folder).files} if MANIFEST in present else set()
    foreign = sorted(present - ours)
    if foreign:
        raise CheckpointError(
            f"{folder}: holds files that are not part of a packed checkpoint ({', '.join(foreign[:5])}"
            f"{', …' if len(foreign) > 5 else ''}); choose another folder, or remove them first"
        )


def _put_in_place(temporary: Path, target: Path) -> None:
    if not target.exists() or not any(target.iterdir()):
        temporary.replace(target)
        return
    old = _beside(target, "old")
    target.replace(old)
    try:
        temporary.replace(target)
    except BaseException:
        old.replace(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    """Make sure that a file or a folder's entries are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(target: Path, what: str) -> Path:
    return target.with_name(f".{target.name}.{what}-{secrets.token_hex(4)}")
