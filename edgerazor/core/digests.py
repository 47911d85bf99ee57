"""A fast digest of files (XXH3, 128 bit): it finds damage, at ten times the speed of sha256; it is no signature."""

from pathlib import Path

import xxhash

_CHUNK = 1 << 20


def digest_file(path: Path) -> str:
    """32 hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    digest, chunk = xxhash.xxh3_128(), memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(chunk):
            digest.update(chunk[:size])
    return digest.hexdigest()
