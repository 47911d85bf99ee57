"""Comparing a folder with a checkpoint: every matrix dequantized by MLX itself, and compared with `==`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgerazor.core.contracts import Checkpoint, ComparisonResult
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import ExportError, first_line
from edgerazor.plugins.exporters.common import read_json
from edgerazor.plugins.exporters.hugging_face import CONFIG, different_companions
from edgerazor.plugins.exporters.mlx.engine import mx
from edgerazor.plugins.exporters.mlx.plan import MLXPlan
from edgerazor.plugins.exporters.mlx.write import CARD

_NUMBERS_AT_ONCE = 1 << 22
_PARTS = ("weight", "scales", "biases")


def verify_folder(
    path: Path, checkpoint: Checkpoint, plan: MLXPlan, on_tensor: Callable[[int, int], None]
) -> ComparisonResult:
    """Names of tensors, files and keys of config.json that differ or are missing, and of tensors of no checkpoint.

    Scales and biases are taken to float32, in which scale * q + bias is exact.

    Raises:
        ExportError: the folder is damaged.
    """
    stored, settings = _open_tensors(path), read_json(path / CONFIG).get("quantization")
    if not isinstance(settings, Mapping):
        raise ExportError(f"{path / CONFIG}: quantization is missing")
    different = list(different_companions(path, checkpoint, plan.config))
    if read_json(path / CARD).get("content_sha256") != checkpoint.digest:
        different.append(f"{CARD}: content_sha256")
    names = [*plan.matrices, *plan.floats]
    for index, name in enumerate(names):
        module = name.removesuffix(".weight")
        parts = [f"{module}.{part}" for part in _PARTS] if name in plan.matrices else [name]
        # What was compared is let go of: MLX keeps what it has read.
        arrays = [stored.pop(part) for part in parts if part in stored]
        if len(arrays) < len(parts) or not _equal(arrays, settings.get(module), checkpoint.read(name)):
            different.append(name)
        on_tensor(index + 1, len(names))
    return ComparisonResult(len(names), (*different, *sorted(stored)))


def _open_tensors(path: Path) -> dict[str, Any]:
    """Every tensor of the folder, read when it is used; those are the files that mlx_lm loads."""
    stored: dict[str, Any] = {}
    files = sorted(path.glob("model*.safetensors"))
    if not files:
        raise ExportError(f"{path}: there is no model.safetensors")
    for file in files:
        try:
            stored |= mx.load(str(file))
        except Exception as error:
            raise ExportError(f"{file}: cannot be read: {first_line(error)}") from error
    return stored


def _equal(arrays: Sequence[Any], settings: Any, value: torch.Tensor | QuantizedTensor) -> bool:
    if not isinstance(value, QuantizedTensor):
        return _same(arrays[0], value.float())
    if not isinstance(settings, Mapping) or any(len(array) != len(value.codes) for array in arrays):
        return False
    try:
        pieces = _pieces(value)
        return all(_same(_dequantize(arrays, settings, rows), values.dequantize()) for rows, values in pieces)
    except (ValueError, TypeError, RuntimeError):  # shapes and settings that do not go together
        return False


def _pieces(value: QuantizedTensor) -> Iterator[tuple[slice, QuantizedTensor]]:
    rows, columns = value.codes.shape
    step = max(1, _NUMBERS_AT_ONCE // columns)
    for start in range(0, rows, step):
        cut = slice(start, start + step)
        yield cut, QuantizedTensor(value.codes[cut], value.scale[cut], value.qmax[:0], value.group_size)


def _dequantize(arrays: Sequence[Any], settings: Mapping[str, Any], rows: slice) -> Any:
    weight, scales, biases = (array[rows] for array in arrays)
    group_size, bits = settings.get("group_size"), settings.get("bits")
    return mx.dequantize(weight, scales.astype(mx.float32), biases.astype(mx.float32), group_size=group_size, bits=bits)


def _same(found: Any, expected: torch.Tensor) -> bool:
    return np.array_equal(np.array(found.astype(mx.float32)), expected.numpy())
