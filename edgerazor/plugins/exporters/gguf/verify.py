"""Comparing a file with a checkpoint: every tensor decoded by code that is not the packer, and compared with `==`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgerazor.core.contracts import Checkpoint, ComparisonResult
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.plugins.exporters.gguf.ggml import dequantizer
from edgerazor.plugins.exporters.gguf.plan import Entry, GGUFPlan
from edgerazor.plugins.exporters.gguf.read import GGUFFile, StoredTensor, open_gguf

_CHUNK = 1 << 21


def verify_gguf(
    path: Path,
    checkpoint: Checkpoint,
    plan: GGUFPlan,
    keys: Mapping[str, Any],
    on_tensor: Callable[[int, int], None],
) -> ComparisonResult:
    """Names of tensors and keys that differ, are missing, or belong to no tensor of the checkpoint.

    Values are decoded by our own readers and, where llama-cpp-python is installed, by its library as well; both must
    equal codes times scale in float32.
    """
    file = open_gguf(path)
    expected = {"general.architecture": plan.architecture.name, **keys}
    different = [key for key, value in expected.items() if not _same_value(file.metadata.get(key), value)]
    for index, entry in enumerate(plan.entries):
        stored = file.tensors.get(entry.name)
        if stored is None or stored.shape != entry.facts.shape or not _equal(file, stored, entry, checkpoint):
            different.append(entry.facts.name)
        on_tensor(index + 1, len(plan.entries))
    for name, values in plan.constants.items():
        stored = file.tensors.get(name)
        if stored is None or not np.array_equal(file.raw(stored).reshape(-1).view("<f4"), values):
            different.append(name)
    known = {entry.name for entry in plan.entries} | set(plan.constants)
    different += [name for name in file.tensors if name not in known]
    return ComparisonResult(len(plan.entries), tuple(different))


def _same_value(found: Any, expected: Any) -> bool:
    """Floats are stored in 32 bits; an empty text is not stored."""
    if isinstance(expected, float):
        return isinstance(found, float) and bool(np.float32(found) == np.float32(expected))
    if isinstance(expected, list):
        same_length = isinstance(found, list) and len(found) == len(expected)
        return same_length and all(map(_same_value, found, expected))
    return bool(found == expected) or (expected == "" and found is None)


def _equal(file: GGUFFile, stored: StoredTensor, entry: Entry, checkpoint: Checkpoint) -> bool:
    value = checkpoint.read(entry.facts.name)
    rows, columns = entry.facts.shape[0], entry.facts.weights // entry.facts.shape[0]
    raw = file.raw(stored).reshape(rows, -1)
    library = dequantizer(stored.decoder.name)
    position = _stored_rows(rows, entry.heads)
    step = max(1, _CHUNK // columns)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        part = np.ascontiguousarray(raw[position[start:stop]])
        expected = _values(value, entry.first + start, entry.first + stop).reshape(-1, columns)
        if entry.offset:
            expected = expected + np.float32(entry.offset)
        decoded = [stored.decoder.rows(part, columns)]
        if library is not None:
            decoded.append(library(part, columns))
        if not all(np.array_equal(values, expected) for values in decoded):
            return False
    return True


def _values(value: Any, start: int, stop: int) -> NDArray[np.float32]:
    """float32 rows of a tensor of the checkpoint."""
    if isinstance(value, QuantizedTensor):
        part = QuantizedTensor(value.codes[start:stop], value.scale[start:stop], value.qmax[:0], value.group_size)
        return part.dequantize().numpy()
    result: NDArray[np.float32] = value[start:stop].float().numpy()
    return result


def _stored_rows(rows: int, heads: int) -> NDArray[np.intp]:
    """Where each row of the checkpoint stands in the file: in a head of width h, row e * h / 2 + k at 2k + e."""
    row = np.arange(rows)
    if not heads:
        return row
    width = rows // heads
    half, k = np.divmod(row % width, width // 2)
    return row - row % width + 2 * k + half
