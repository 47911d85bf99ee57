"""Digests of files: XXH3 (128 bit) finds damage several times faster than sha256, which is a signature, too."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import xxhash

_CHUNK = 1 << 20


def digest_file(path: Path) -> str:
    """XXH3 of a file, 32 hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    digest = xxhash.xxh3_128()
    for chunk in _chunks(path):
        digest.update(chunk)
    return digest.hexdigest()


def both_digests(path: Path) -> tuple[str, str]:
    """sha256 and XXH3 of a file in one pass; errors as for `digest_file`."""
    secure, fast = hashlib.sha256(), xxhash.xxh3_128()
    for chunk in _chunks(path):
        secure.update(chunk)
        fast.update(chunk)
    return secure.hexdigest(), fast.hexdigest()


def _chunks(path: Path) -> Iterator[memoryview]:
    chunk = memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(chunk):
            yield chunk[:size]
