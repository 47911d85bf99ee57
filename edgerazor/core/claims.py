"""One process at a time writes to an output; a second one is told which process that is.

A lock file says who holds the output: beside what is replaced whole, inside a folder that is filled in place, whose
parent may be read-only. It ends with its process; the file of a killed one is taken over by the next.
"""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from edgerazor.errors import OutputError

LOCK = ".lock"
_ATTEMPTS, _PAUSE = 20, 0.05


@contextmanager
def claimed(output: Path, *, inside: bool = False) -> Iterator[None]:
    """Hold an output against other processes for the block, by whatever name they call it.

    Folders that had to be made for it are removed at the end if nothing is in them. Where the file system has no locks
    nothing is held.

    Args:
        output: file or folder that will be written.
        inside: it is a folder that is filled in place.

    Raises:
        OutputError: another process holds it, which is named, or nothing can be written there.
    """
    target = output.resolve()
    lock = target / LOCK if inside else target.with_name(f".{target.name}{LOCK}")
    missing = [folder for folder in lock.parents if not folder.exists()]
    try:
        with ExitStack() as stack:
            try:
                holder = stack.enter_context(_locked(lock))
            except OSError as error:
                raise OutputError(f"{output}: cannot be written: {error.strerror or error}") from error
            if holder is not None:
                raise OutputError(f"{output}: {holder} is writing to it; wait for its end, or choose another output")
            yield
    finally:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def _locked(lock: Path) -> Iterator[str | None]:
    """Hold a lock file and write into it who does; yields None, or who holds it already."""
    descriptor, taken = _open(lock)
    try:
        if not taken:
            yield _holder(descriptor)
            return
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
            yield None
        finally:
            lock.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _open(lock: Path) -> tuple[int, bool]:
    """A descriptor of the file at `lock`, and whether this process has locked it."""
    while True:
        with suppress(FileNotFoundError):  # whoever made the folder has removed it
            lock.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
            taken = _take(descriptor)
            if _is_at(descriptor, lock):
                return descriptor, taken
            os.close(descriptor)  # its former holder has removed it


def _take(descriptor: int) -> bool:
    """Lock a file; False if another process has. A file system without locks has nobody who has."""
    with suppress(OSError):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one at a path."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _holder(descriptor: int) -> str:
    """What the holder of a lock file has written there, which it does right after it has locked it."""
    for _ in range(_ATTEMPTS):
        if text := os.pread(descriptor, 1 << 10, 0):
            return text.decode(errors="replace")
        time.sleep(_PAUSE)
    return "another process"
