"""The folder of a teacher cache.

cache.json                what it was made from; written last, so a folder without it is unfinished
rows-00000.safetensors    `shard_rows` rows of the training data each, in the order of the data:
    offsets               int64 [rows + 1]: where a row's predicted positions start
    digests               uint8 [rows, 16]: of each row's tokens and labels
    ids                   int32 [positions, top_k]
    log_probabilities     float16 [positions, top_k], at temperature 1
    log_rest              float32 [positions, temperatures]
    entropy               float32 [positions]
    label_log_probability float32 [positions]

The metadata of such a file has a digest of the content; version 0.1 wrote none.
"""

import datetime
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xxhash
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError, safe_open

MANIFEST = "cache.json"
SHARD_ROWS = 256
DIGEST = "xxh3_128"
COLUMNS = ("offsets", "digests", "ids", "log_probabilities", "log_rest", "entropy", "label_log_probability")


class Manifest(BaseModel):
    """What `cache.json` says.

    Attributes:
        teacher, revision: name and version of the model that was run.
        temperatures: of the losses that the cache serves, ascending.
        data_digest: of all rows.
        date: that the chat template was told, if it asks for one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    teacher: str
    revision: str | None = None
    vocabulary_size: int
    top_k: int
    temperatures: tuple[float, ...]
    rows: int
    positions: int
    shard_rows: int = SHARD_ROWS
    data_digest: str
    date: datetime.date | None = None

    @property
    def shards(self) -> int:
        """How many files hold the rows."""
        return -(-self.rows // self.shard_rows)

    def rows_of(self, shard: int) -> range:
        """Numbers of the rows in a shard."""
        return range(shard * self.shard_rows, min((shard + 1) * self.shard_rows, self.rows))

    def shard_is_whole(self, path: Path, digests: Sequence[bytes]) -> bool:
        """Whether a file holds what it should for rows with these digests, and all of it as it was written."""
        try:
            with safe_open(path, framework="numpy") as file:
                offsets = file.get_tensor("offsets")
                wide = {"ids": self.top_k, "log_probabilities": self.top_k, "log_rest": len(self.temperatures)}
                shapes = {name: [int(offsets[-1]), width] for name, width in wide.items()}
                shapes |= {name: [int(offsets[-1])] for name in ("entropy", "label_log_probability")}
                return (
                    file.get_tensor("digests").tobytes() == b"".join(digests)
                    and len(offsets) == len(digests) + 1
                    and all(file.get_slice(name).get_shape() == shape for name, shape in shapes.items())
                    and (file.metadata() or {}).get(DIGEST) in (None, content_digest(map(file.get_tensor, COLUMNS)))
                )
        except (OSError, SafetensorError, IndexError, ValueError):
            return False


def shard_name(index: int) -> str:
    """File of a shard."""
    return f"rows-{index:05d}.safetensors"


def content_digest(columns: Iterable[NDArray[Any]]) -> str:
    """Digest of the columns of a shard in the order of `COLUMNS`, their kinds included: 32 hexadecimal digits."""
    digest = xxhash.xxh3_128()
    for column in columns:
        digest.update(f"{column.dtype.str} {column.shape}".encode())
        digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()


def row_digest(row: Mapping[str, Any]) -> bytes:
    """16 bytes that tell one row of training data from another."""
    content = hashlib.blake2b(digest_size=16)
    for key in ("input_ids", "labels", "position_ids"):
        if key in row:
            content.update(np.asarray(row[key], dtype=np.int64).tobytes())
            content.update(b"|")
    return content.digest()


def data_digest(rows: Sequence[bytes]) -> str:
    """Digest over the digests of all rows, in order: 32 hexadecimal digits."""
    return hashlib.blake2b(b"".join(rows), digest_size=16).hexdigest()
