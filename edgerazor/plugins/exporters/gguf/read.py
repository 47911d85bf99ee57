"""Reading a GGUF file: keys, and where its tensors lie. Own code, so that the check is independent of the writer."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgerazor.errors import ExportError
from edgerazor.plugins.exporters.gguf.unpack import DECODERS, Decoder

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_DEFAULT_ALIGNMENT = 32


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file: `shape` as in torch, first byte, and how it is decoded."""

    name: str
    shape: tuple[int, ...]
    decoder: Decoder
    start: int

    @property
    def row_bytes(self) -> int:
        return self.shape[-1] // self.decoder.block * self.decoder.bytes

    @property
    def bytes(self) -> int:
        return self.row_bytes * int(np.prod(self.shape[:-1], dtype=np.int64))


@dataclass(frozen=True)
class GGUFFile:
    """An opened file; `data` is mapped, not read."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, StoredTensor]
    data: NDArray[np.uint8]

    def raw(self, tensor: StoredTensor) -> NDArray[np.uint8]:
        """uint8 `[rows, row_bytes]`; a vector is one row."""
        return self.data[tensor.start : tensor.start + tensor.bytes].reshape(-1, tensor.row_bytes)


_Result = TypeVar("_Result")


def open_gguf(path: Path) -> GGUFFile:
    """Read the keys and the list of tensors.

    Raises:
        ExportError: the file cannot be read, is no GGUF, is cut off, or holds a type that is not known here.
    """
    return _parse(path, lambda parser: parser.parse())


def read_metadata(path: Path) -> dict[str, Any]:
    """Read the keys alone, whatever tensors follow; errors as for `open_gguf`."""
    return _parse(path, lambda parser: parser.keys()[0])


def _parse(path: Path, read: "Callable[[_Parser], _Result]") -> _Result:
    try:
        size = path.stat().st_size
        data: NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r") if size else np.empty(0, dtype=np.uint8)
    except (OSError, ValueError) as error:
        raise ExportError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if data[:4].tobytes() != _MAGIC:
        raise ExportError(f"{path}: is no GGUF file")
    try:
        return read(_Parser(path, data))
    except (struct.error, UnicodeDecodeError, OverflowError, MemoryError) as error:
        raise ExportError(f"{path}: is cut off or damaged: {error}") from error


class _Parser:
    def __init__(self, path: Path, data: NDArray[np.uint8]):
        self.path, self.data = path, data
        self.view, self.position = data.data, len(_MAGIC)

    def keys(self) -> tuple[dict[str, Any], int]:
        """All keys, and how many tensors follow."""
        version = self._scalar("I")
        if version not in _VERSIONS:
            raise ExportError(f"{self.path}: is GGUF version {version}; expected 2 or 3, little-endian")
        tensor_count, key_count = self._scalar("Q"), self._scalar("Q")
        metadata = {}
        for _ in range(key_count):
            key = self._string()
            metadata[key] = self._value(self._scalar("I"))
        return metadata, tensor_count

    def parse(self) -> GGUFFile:
        metadata, tensor_count = self.keys()
        found = [self._tensor() for _ in range(tensor_count)]
        alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        start = -(-self.position // alignment) * alignment
        tensors = {name: make(start) for name, make in found}
        for tensor in tensors.values():
            if tensor.start + tensor.bytes > len(self.data):
                raise ExportError(f"{self.path}: is cut off: {tensor.name} ends after the end of the file")
        return GGUFFile(self.path, metadata, tensors, self.data)

    def _tensor(self) -> tuple[str, Callable[[int], StoredTensor]]:
        name = self._string()
        axes = [self._scalar("Q") for _ in range(self._scalar("I"))]
        type_id, offset = self._scalar("I"), self._scalar("Q")
        decoder = DECODERS.get(type_id)
        if decoder is None:
            raise ExportError(f"{self.path}: {name}: tensor type {type_id} is not known here")
        if not axes or axes[0] % decoder.block:
            raise ExportError(f"{self.path}: {name}: shape {axes} does not fill blocks of {decoder.block}")
        return name, lambda start: StoredTensor(name, tuple(reversed(axes)), decoder, start + offset)

    def _scalar(self, code: str) -> Any:
        layout = struct.Struct(f"<{code}")
        (value,) = layout.unpack_from(self.view, self.position)
        self.position += layout.size
        return value

    def _string(self) -> str:
        length = self._scalar("Q")
        if self.position + length > len(self.data):
            raise ExportError(f"{self.path}: is cut off inside its keys")
        text = bytes(self.view[self.position : self.position + length]).decode("utf-8")
        self.position += length
        return text

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            inner, count = self._scalar("I"), self._scalar("Q")
            if count > len(self.data):
                raise ExportError(f"{self.path}: is cut off inside its keys")
            return [self._value(inner) for _ in range(count)]
        if kind not in _SCALARS:
            raise ExportError(f"{self.path}: a key has the unknown type {kind}")
        return self._scalar(_SCALARS[kind])
