"""Locks that end with the process that holds them, however it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[bool | None]:
    """Hold a lock on a file or folder for the block.

    Yields whether this process got it: False if another one holds it, None where the file system has no locks.

    Args:
        wait: until whoever holds it lets it go.

    Raises:
        OSError: there is nothing at `path`, or it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY)
    held: bool | None = None
    try:
        with suppress(OSError):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                held = True
            except BlockingIOError:
                held = False
        yield held
    finally:
        os.close(descriptor)
