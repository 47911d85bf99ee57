"""Comparing a folder with a checkpoint: every matrix dequantized by MLX itself, and compared with `==`."""

from collections.abc import Callable, Iterator, Mapping
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
    known: set[str] = set()
    for index, name in enumerate(names):
        value, module = checkpoint.read(name), name.removesuffix(".weight")
        known |= {f"{module}.{part}" for part in _PARTS} if name in plan.matrices else {name}
        try:
            same = _equal(stored, settings.get(module), name, value)
        except (ValueError, TypeError, RuntimeError):  # shapes that do not go together
            same = False
        if not same:
            different.append(name)
        on_tensor(index + 1, len(names))
    different += sorted(stored.keys() - known)
    return ComparisonResult(len(names), tuple(different))


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


def _equal(stored: Mapping[str, Any], settings: Any, name: str, value: torch.Tensor | QuantizedTensor) -> bool:
    if not isinstance(value, QuantizedTensor):
        found = stored.get(name)
        return found is not None and found.shape == tuple(value.shape) and _same(found, value.float())
    module = name.removesuffix(".weight")
    parts = [stored[f"{module}.{part}"] for part in _PARTS if f"{module}.{part}" in stored]
    if len(parts) < len(_PARTS) or not isinstance(settings, Mapping):
        return False
    if {len(part) for part in parts} != {len(value.codes)}:
        return False
    return all(_same(_dequantize(parts, settings, rows), values.dequantize()) for rows, values in _pieces(value))


def _pieces(value: QuantizedTensor) -> Iterator[tuple[slice, QuantizedTensor]]:
    rows, columns = value.codes.shape
    step = max(1, _NUMBERS_AT_ONCE // columns)
    for start in range(0, rows, step):
        cut = slice(start, start + step)
        yield cut, QuantizedTensor(value.codes[cut], value.scale[cut], value.qmax[:0], value.group_size)


def _dequantize(parts: list[Any], settings: Mapping[str, Any], rows: slice) -> Any:
    weight, scales, biases = (part[rows] for part in parts)
    group_size, bits = settings.get("group_size"), settings.get("bits")
    return mx.dequantize(weight, scales.astype(mx.float32), biases.astype(mx.float32), group_size=group_size, bits=bits)


def _same(found: Any, expected: torch.Tensor) -> bool:
    return np.array_equal(np.array(found.astype(mx.float32)), expected.numpy())
