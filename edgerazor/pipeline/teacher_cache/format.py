"""The folder of a teacher cache.

cache.json                what it was made from; written last, so a folder without it is unfinished
rows-00000.safetensors    `SHARD_ROWS` rows of the training data each, in the order of the data:
    offsets               int64 [rows + 1]: where a row's predicted positions start
    digests               uint8 [rows, 16]: of each row's tokens and labels
    ids                   int32 [positions, top_k]
    log_probabilities     float16 [positions, top_k], at temperature 1
    log_rest              float32 [positions, temperatures]
    entropy               float32 [positions]
    label_log_probability float32 [positions]
"""

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict

MANIFEST = "cache.json"
SHARD_ROWS = 256
VERSION = 1


class Manifest(BaseModel):
    """What `cache.json` says."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    FILE: ClassVar[str] = MANIFEST

    version: int = VERSION
    teacher: str
    vocabulary_size: int
    top_k: int
    temperatures: tuple[float, ...]
    rows: int
    positions: int
    data_digest: str


def shard_name(index: int) -> str:
    """File of the rows from `index * SHARD_ROWS` on."""
    return f"rows-{index:05d}.safetensors"


def row_digest(row: Mapping[str, Any]) -> bytes:
    """16 bytes that tell one row of training data from another."""
    content = hashlib.blake2b(digest_size=16)
    for key in ("input_ids", "labels", "position_ids"):
        if key in row:
            content.update(np.asarray(row[key], dtype=np.int64).tobytes())
            content.update(b"|")
    return content.digest()


def predicted_positions(labels: Any) -> int:
    """Positions of a row whose next label is to be learned."""
    return int((np.asarray(labels)[1:] != -100).sum())
