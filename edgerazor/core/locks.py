"""Locks that end with the process that holds them, however it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold a lock on a file or folder for the block; yields whether this process got it.

    Where the file system has no locks nobody gets one.

    Args:
        wait: until whoever holds it lets it go.

    Raises:
        OSError: there is nothing at `path`, or it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY)
    held = False
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held = True
        yield held
    finally:
        os.close(descriptor)
