"""Which model wrote a row: a digest of its files."""

from pathlib import Path

import xxhash

from edgerazor.core.digests import file_digests
from edgerazor.schemas.paths import local_path


def model_digest(name: str) -> str | None:
    """XXH3 of a file, or of the names and digests of a folder's files but for hidden ones and pages; None: a hub name.

    Raises:
        OSError: a file cannot be read.
    """
    path = local_path(name)
    if path.is_file():
        return _digest(path)
    if not path.is_dir():
        return None
    files = [file for file in sorted(path.iterdir()) if file.is_file()]
    files = [file for file in files if not file.name.startswith(".") and file.suffix != ".md"]
    return xxhash.xxh3_128("".join(f"{file.name} {_digest(file)}\n" for file in files).encode()).hexdigest()


def _digest(file: Path) -> str:
    return file_digests(file, "xxh3_128")["xxh3_128"]
