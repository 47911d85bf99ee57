"""The beginning of a file, by the package gguf: keys, and what tensors follow."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np


def write_header(
    path: Path,
    architecture: str,
    metadata: Mapping[str, Any],
    tensors: Sequence[tuple[str, tuple[int, ...], int, int]] = (),
) -> None:
    """Write keys and the list of tensors; a file without tensors is what llama.cpp reads a tokenizer from.

    Args:
        path: of the file.
        architecture: value of `general.architecture`.
        metadata: keys and values; the type in the file follows the type in Python.
        tensors: name, shape, bytes and number of the type of each.
    """
    writer = gguf.GGUFWriter(path, architecture)
    try:
        for key, value in metadata.items():
            _add_key(writer, key, value)
        for name, shape, size, type_id in tensors:
            # As int8 the writer takes shape and type as they are, also a type that it does not know yet.
            writer.add_tensor_info(name, shape, np.dtype(np.int8), size, type_id)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()


def _add_key(writer: Any, key: str, value: Any) -> None:
    """The type in the file follows the type in Python; whole numbers are uint32, in lists int32."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
