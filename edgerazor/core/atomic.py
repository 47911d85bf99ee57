"""Writing whole or not at all: a file or folder is made beside its path and takes its place once it is on the disk."""

import ctypes
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from edgerazor.core.locks import locked

_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES, errno.EPERM, errno.EROFS}
_MARK, _FORMER = ".partial-", "former"
_CURRENT_FOLDER, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of renameat2(2)


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Give a free path; the file or folder made there replaces `path` once the block ends well.

    On any failure, an interrupt too, nothing of it is left, nor a folder above that had to be made for it, and what was
    at `path` is untouched. What a killed process left is removed by the next call for the same path.

    Raises:
        OSError: it cannot be written (a full disk, for example), is a device or a pipe, or the block made nothing.
    """
    target = path.resolve()
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise OSError(errno.EINVAL, "is a device or a pipe", str(path))
    missing = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(target.parent, target.name)
        with _workspace(target) as workspace:
            temporary = workspace / target.name
            yield temporary
            sync_tree(temporary)
            _put_in_place(temporary, target)
            missing.clear()
            sync(target.parent)
    finally:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` for what is needed on the way to it, gone after the block.

    What a killed process left is removed by the next call for the same path, or by `replaced`.

    Raises:
        OSError: it cannot be made.
    """
    target = path.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(target.parent, target.name)
    with _workspace(target) as workspace:
        yield workspace


def write_text(path: Path, text: str) -> None:
    """Replace a file by UTF-8 text whole; a terminal, a pipe or a device gets it directly.

    Raises:
        OSError: it cannot be written; what was there is untouched.
    """
    if path.is_file() or (path.parent.is_dir() and not path.exists()):
        with replaced(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    else:
        path.write_text(text, encoding="utf-8")


def remove_folder(folder: Path) -> None:
    """Remove a folder so that a process killed meanwhile leaves no part of it under its name."""
    with _workspace(folder) as workspace:
        folder.rename(workspace / folder.name)


def remove_abandoned(folder: Path, name: str | None = None) -> None:
    """Remove what killed processes left in a folder they were writing to; a folder that they were about to replace and
    had put aside is put back.

    Args:
        name: of what they were writing; None is anything.
    """
    with suppress(OSError):  # another process may do the same
        for workspace in folder.glob(".*"):
            made = workspace.name[1:].rpartition(_MARK)[0]
            if not made or made != (name or made) or not workspace.is_dir():
                continue
            with locked(workspace) as free:
                if free:
                    if (workspace / _FORMER).exists() and not (folder / made).exists():
                        (workspace / _FORMER).rename(folder / made)
                    shutil.rmtree(workspace, ignore_errors=True)


def is_partial(path: Path) -> bool:
    """Whether a path is where `replaced` makes something, or made it before its process was killed."""
    return path.name.startswith(".") and _MARK in path.name


def file_above(path: Path) -> Path | None:
    """A file that stands where a folder above `path` would have to be; None if there is none."""
    return next((above for above in path.absolute().parents if above.exists() and not above.is_dir()), None)


def sync_tree(path: Path) -> None:
    """Make sure that a file, or a folder with all that is in it, is on the disk."""
    for inner in path.rglob("*") if path.is_dir() else ():
        sync(inner)
    sync(path)


def sync(path: Path) -> None:
    """Make sure that the content of a file, or the entries of a folder, are on the disk, where its system can do so."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return  # a folder that may be written to, not read
    try:
        sync_descriptor(descriptor)
    finally:
        os.close(descriptor)


def sync_descriptor(descriptor: int) -> None:
    """`os.fsync`, but no error where the file system has none (network and user-space file systems)."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


@contextmanager
def _workspace(target: Path) -> Iterator[Path]:
    """A locked folder beside `target`, removed at the end with all that is still in it."""
    with ExitStack() as stack:
        while True:
            workspace = target.with_name(f".{target.name}{_MARK}{secrets.token_hex(4)}")
            workspace.mkdir()
            with suppress(FileNotFoundError):
                stack.enter_context(locked(workspace, wait=True))
                # Before it was locked another process may have taken it for abandoned.
                if workspace.exists():
                    break
        stack.callback(shutil.rmtree, workspace, ignore_errors=True)
        yield workspace


def _put_in_place(temporary: Path, target: Path) -> None:
    """A rename replaces files and empty folders; a folder that holds something is exchanged, or steps aside first."""
    try:
        temporary.replace(target)
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    if _exchange(temporary, target):
        return
    former = temporary.with_name(_FORMER)
    target.rename(former)
    try:
        temporary.rename(target)
    except BaseException:
        former.rename(target)
        raise


def _exchange(first: Path, second: Path) -> bool:
    """Let two paths swap what they name, at once; False where the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    names = os.fsencode(first), os.fsencode(second)
    return rename is not None and rename(_CURRENT_FOLDER, names[0], _CURRENT_FOLDER, names[1], _EXCHANGE) == 0
