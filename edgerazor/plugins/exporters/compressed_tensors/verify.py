"""Comparing a folder with a checkpoint: every matrix decompressed by the package compressed-tensors, with `==`."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme
from compressed_tensors.utils import match_name
from torch import Tensor

from edgerazor.core.contracts import Checkpoint, ComparisonResult
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import ExportError, first_line
from edgerazor.plugins.exporters.common import DIGEST, read_json
from edgerazor.plugins.exporters.compressed_tensors.layout import FORMAT, dequantized, row_slices
from edgerazor.plugins.exporters.compressed_tensors.plan import Matrix, Planner
from edgerazor.plugins.exporters.hugging_face import CONFIG, ExportedTensors, different_companions
from edgerazor.plugins.exporters.params import CompressedTensorsParams

_PARTS = ("weight_packed", "weight_scale", "weight_shape")


def verify_folder(
    path: Path, checkpoint: Checkpoint, params: CompressedTensorsParams, on_tensor: Callable[[int, int], None]
) -> ComparisonResult:
    """Names of tensors, files and keys of config.json that differ, are missing or are too many.

    Raises:
        ExportError: the folder is damaged, or is none of ours.
    """
    stored, schemes = ExportedTensors(path), _read_schemes(path)
    planner, names = Planner(checkpoint, params), list(checkpoint.names())
    different = [] if stored.digests == {checkpoint.digest} else [DIGEST]
    expected: set[str] = set()
    for index, name in enumerate(names):
        value = checkpoint.read(name)
        planner.add(name, value)
        module = name.removesuffix(".weight")
        if not isinstance(value, QuantizedTensor):
            expected.add(name)
            same = _equal(stored.read(name), value.to(planner.plan.floats[name]))
        elif module in planner.plan.matrices:
            matrix = planner.plan.matrices[module]
            expected |= set(_tensor_names(name, matrix))
            same = _equal_matrix(stored, schemes, name, value, matrix, planner.plan.dtype)
        else:
            same = False
        if not same:
            different.append(name)
        on_tensor(index + 1, len(names))
    plan = planner.finish()
    different += sorted(stored.headers.keys() - expected)
    different += different_companions(path, checkpoint, plan.changes())
    return ComparisonResult(len(names), tuple(different))


def _read_schemes(path: Path) -> list[tuple[str, QuantizationScheme]]:
    """`(target, scheme)` of all groups, as the package reads them."""
    section = read_json(path / CONFIG).get("quantization_config")
    try:
        groups: Mapping[str, Any] = QuantizationConfig.model_validate(section).config_groups
        return [(target, scheme) for scheme in groups.values() for target in scheme.targets]
    except Exception as error:  # pydantic's, and those of the package's own validators
        raise ExportError(f"{path / CONFIG}: quantization_config: cannot be read: {first_line(error)}") from error


def _tensor_names(name: str, matrix: Matrix) -> Iterator[str]:
    if matrix.rounded:
        yield name
    yield from (f"{module}.{part}" for module in matrix.packed for part in _PARTS)


def _equal_matrix(
    stored: ExportedTensors,
    schemes: list[tuple[str, QuantizationScheme]],
    name: str,
    value: QuantizedTensor,
    matrix: Matrix,
    dtype: torch.dtype,
) -> bool:
    """Whether a matrix is in all its places what it is in the checkpoint."""
    if matrix.rounded and not _equal(stored.read(name), dequantized(value, dtype)):
        return False
    for module in matrix.packed:
        scheme = next((scheme for target, scheme in schemes if match_name(module, target)), None)
        tensors = {part: stored.read(f"{module}.{part}") for part in _PARTS}
        if scheme is None or not _equal_packed(tensors, scheme, value, dtype):
            return False
    return True


def _equal_packed(
    tensors: Mapping[str, Tensor | None], scheme: QuantizationScheme, value: QuantizedTensor, dtype: torch.dtype
) -> bool:
    """Whether packed tensors give the weights and the scales of a matrix, some rows at a time."""
    packed, scale, shape = (tensors[part] for part in _PARTS)
    rows, columns = value.codes.shape
    if packed is None or scale is None or shape is None or shape.tolist() != [rows, columns]:
        return False
    bits, true_scale = scheme.weights.num_bits, value.scale.reshape(rows, -1)
    words, times = -(-columns * bits // 32), scale.shape[-1] // true_scale.shape[1]
    if packed.dtype != torch.int32 or packed.shape != (rows, words) or scale.dtype != dtype or scale.ndim != 2:
        return False
    if not torch.equal(scale, true_scale.to(dtype).repeat_interleave(times, dim=1)):
        return False
    compressor = BaseCompressor.get_value_from_registry(FORMAT)
    for part in row_slices(rows, columns):
        state = {"weight_packed": packed[part], "weight_scale": scale[part]}
        state["weight_shape"] = torch.tensor([part.stop - part.start, columns])
        weight = compressor.decompress(state, scheme)["weight"]
        own = QuantizedTensor(value.codes[part], true_scale[part], value.qmax[part], value.group_size)
        if not _equal(weight, own.dequantize(dtype)):
            return False
    return True


def _equal(found: Tensor | None, expected: Tensor) -> bool:
    return found is not None and found.dtype == expected.dtype and torch.equal(found, expected)
