"""Tensors written to the disk as they come, and put into one safetensors file at the end; none stays in memory."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, Self

import torch
from torch import Tensor

from edgerazor.core.tensor_files import DTYPE_NAMES
from edgerazor.errors import CheckpointError

_CHUNK = 1 << 22


class TensorSpool:
    """Tensors by their names in the file, kept in a file of `folder` that has no name."""

    def __init__(self, folder: Path):
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
        self._entries: dict[str, tuple[torch.dtype, tuple[int, ...], int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, tensors: Mapping[str, Tensor]) -> None:
        """Write tensors to the disk.

        Raises:
            CheckpointError: one is of a dtype that is not in `DTYPE_NAMES`.
            OSError: the disk is full.
        """
        for name, tensor in tensors.items():
            if tensor.dtype not in DTYPE_NAMES:
                raise CheckpointError(f"{name}: is {tensor.dtype}, which no file of ours can hold")
            self._entries[name] = tensor.dtype, tuple(tensor.shape), self._file.seek(0, os.SEEK_END)
            self._file.write(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)

    def size(self, name: str) -> int:
        """Bytes of one tensor."""
        dtype, shape, _ = self._entries[name]
        return prod(shape) * dtype.itemsize

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of every tensor, in the order in which they were added."""
        return {name: self.size(name) for name in self._entries}

    def save(self, path: Path, metadata: Mapping[str, str] = MappingProxyType({})) -> None:
        """Write all of them as `safetensors.torch.save_file` would, byte by byte; `metadata` besides the format."""
        order = list(DTYPE_NAMES)
        names = sorted(self._entries, key=lambda name: (order.index(self._entries[name][0]), name))
        header: dict[str, object] = {"__metadata__": {"format": "pt", **metadata}}
        end = 0
        for name in names:
            dtype, shape, _ = self._entries[name]
            start, end = end, end + self.size(name)
            header[name] = {"dtype": DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name in names:
                for chunk in self._chunks(name):
                    file.write(chunk)

    def _chunks(self, name: str) -> Iterator[bytes]:
        left = self.size(name)
        self._file.seek(self._entries[name][2])
        while left:
            chunk = self._file.read(min(left, _CHUNK))
            if not chunk:
                raise OSError(f"{name}: what was written of it is gone")
            left -= len(chunk)
            yield chunk
