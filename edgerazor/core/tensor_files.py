"""What tensors a folder holds, from the headers of its safetensors files; no tensor is read."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from edgerazor.core.json_files import check_file_name, read_json
from edgerazor.errors import CheckpointError

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
# In the order in which safetensors puts the tensors of a file; those of one dtype follow by name.
DTYPE_NAMES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}


@dataclass(frozen=True)
class Header:
    """One tensor of a file; `dtype` is None for one that no part of a checkpoint may have."""

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype | None

    def describe(self) -> str:
        return describe(self.shape, self.dtype)


def describe(shape: Iterable[int], dtype: torch.dtype | None) -> str:
    """`uint8 [4, 13]`."""
    return f"{str(dtype).removeprefix('torch.')} {list(shape)}"


def weight_files(folder: Path) -> list[Path]:
    """`model.safetensors`, or the shards that its index names.

    Raises:
        CheckpointError: neither is there, or the index names a file outside the folder.
    """
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    index = folder / INDEX
    if not index.exists():
        raise CheckpointError(f"{folder / WEIGHTS}: is missing, and there is no {INDEX} either")
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise CheckpointError(f"{index}: weight_map: expected file names by tensor name")
    for name in shards.values():
        check_file_name(name, f"{index}: weight_map")
    return [folder / name for name in sorted(set(shards.values()))]


def read_headers(files: Iterable[Path]) -> dict[str, Header]:
    """`{tensor name: header}` of all files.

    Raises:
        CheckpointError: a file is missing, cut off or not safetensors, or a name occurs twice.
    """
    headers: dict[str, Header] = {}
    for file in files:
        with open_tensors(file) as opened:
            for name in opened.keys():  # noqa: SIM118 - not a mapping
                part = opened.get_slice(name)
                if name in headers:
                    raise CheckpointError(f"{file}: {name}: is also in {headers[name].file.name}")
                headers[name] = Header(file, tuple(part.get_shape()), _DTYPES.get(part.get_dtype()))
    return headers


def open_tensors(file: Path, device: torch.device | None = None) -> Any:
    """`safe_open` on the CPU or another device; a file that cannot be opened or is cut off is a CheckpointError."""
    if not file.exists():
        raise CheckpointError(f"{file}: is missing")
    try:
        return safe_open(file, framework="pt", device=str(device or "cpu"))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: is cut off or not a safetensors file: {error}") from error
