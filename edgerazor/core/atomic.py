"""Writing whole or not at all: a file or folder is made beside its path and takes its place once it is on the disk."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Give a free path beside `path`; the file or folder made there replaces `path` once the block ends well.

    On any failure, an interrupt too, nothing of it is left, nor a folder above that had to be made for it, and what was
    at `path` is untouched.

    Raises:
        OSError: it cannot be written (a full disk, for example), or the block made nothing.
    """
    target = path.resolve()
    temporary = _beside(target, "partial")
    missing = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        for inner in temporary.rglob("*"):
            _sync(inner)
        _sync(temporary)
        _put_in_place(temporary, target)
        missing.clear()
        _sync(target.parent)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):
            temporary.unlink()
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()


def file_above(path: Path) -> Path | None:
    """A file that stands where a folder above `path` would have to be; None if there is none."""
    return next((above for above in path.absolute().parents if above.exists() and not above.is_dir()), None)


def _put_in_place(temporary: Path, target: Path) -> None:
    """A rename replaces files and empty folders; a folder that holds something steps aside first."""
    if not (temporary.is_dir() and target.is_dir() and any(target.iterdir())):
        temporary.replace(target)
        return
    old = _beside(target, "old")
    target.rename(old)
    try:
        temporary.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    """Make sure that the content of a file, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(target: Path, what: str) -> Path:
    return target.with_name(f".{target.name}.{what}-{secrets.token_hex(4)}")
