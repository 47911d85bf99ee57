"""Comparing a folder with a checkpoint: codes and scales out of the initializers, compared with `==`."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgerazor.core.contracts import Checkpoint, ComparisonResult
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import ExportError, first_line
from edgerazor.plugins.exporters.common import DIGEST
from edgerazor.plugins.exporters.hugging_face import different_copies
from edgerazor.plugins.exporters.onnx.empty_model import empty_model
from edgerazor.plugins.exporters.onnx.folder import DATA, MODEL
from edgerazor.plugins.exporters.onnx.plan import is_counter
from edgerazor.plugins.exporters.onnx.read import operators_fit, read_codes, read_scales
from edgerazor.plugins.exporters.onnx.rotary import frequencies, layer_types, rotary_tables, table_names

TENSORS = "edgerazor.tensors"
_CODES_AT_ONCE = 1 << 22


def verify_folder(path: Path, checkpoint: Checkpoint, on_tensor: Callable[[int, int], None]) -> ComparisonResult:
    """Names of tensors that differ or are missing.

    Raises:
        ExportError: there is no graph, it is damaged, or it is none of ours.
    """
    graph, places, digest = _open(path)
    names = [name for name in checkpoint.names() if not (checkpoint.facts.image and is_counter(name))]
    different = [] if digest == checkpoint.digest else [DIGEST]
    different += [] if checkpoint.facts.image else _different_tables(graph, checkpoint)
    different += different_copies(path, checkpoint)
    for index, name in enumerate(names):
        value = checkpoint.read(name)
        module = name.removesuffix(".weight")
        same = (
            _equal_codes(graph, places.get(module, []), value)
            if isinstance(value, QuantizedTensor)
            else _equal_floats(graph, name, np.asarray(value.float().numpy()))
        )
        if not same:
            different.append(name)
        on_tensor(index + 1, len(names))
    return ComparisonResult(len(names), tuple(different))


def _open(path: Path) -> tuple[ir.Graph, dict[str, list[dict[str, Any]]], str]:
    try:
        model = ir.load(path / MODEL)
        places = json.loads(model.metadata_props[TENSORS])
        return model.graph, places, model.metadata_props[DIGEST]
    except FileNotFoundError as error:
        raise ExportError(f"{path}: there is no {MODEL}") from error
    except KeyError as error:
        raise ExportError(f"{path / MODEL}: was not written by edgerazor: {error} is missing") from error
    except Exception as error:
        raise ExportError(f"{path / MODEL}: cannot be read: {first_line(error)}") from error


def _equal_codes(graph: ir.Graph, places: Sequence[Mapping[str, Any]], value: QuantizedTensor) -> bool:
    """Whether the rows at these places are those of a matrix, all of them."""
    codes, scale = value.codes.numpy(), value.scale.float().numpy()
    rows, columns = codes.shape
    covered = np.zeros(rows, dtype=bool)
    for place in places:
        index = _rows(place, rows)
        stored, kept = (_array(graph, str(place[key])) for key in ("codes", "scales"))
        if stored is None or kept is None or len(index) != place["count"] or not operators_fit(graph, place, columns):
            return False
        if place["transposed"]:
            stored, kept = stored.T, kept.T
        cut = slice(int(place["first"]), int(place["first"]) + int(place["count"]))
        scales = read_scales(kept[cut], scale.shape[1])
        if not (np.array_equal(scales, scale[index]) and _equal_rows(stored[cut], codes, index, place)):
            return False
        covered[index] = True
    return bool(covered.all())


def _equal_rows(stored: np.ndarray, codes: np.ndarray, index: np.ndarray, place: Mapping[str, Any]) -> bool:
    """Whether what is stored is the rows `index` of the codes `[rows, columns]`, some of them in memory at a time."""
    columns = codes.shape[1]
    some = max(1, _CODES_AT_ONCE // columns)
    if len(stored) != len(index):
        return False
    for start in range(0, len(index), some):
        part = stored[start : start + some]
        signed = place["transposed"] or place.get("signed")
        found = part.astype(np.int16) if signed else read_codes(part, int(place["bits"]), columns)
        if not np.array_equal(found, codes[index[start : start + some]]):
            return False
    return True


def _rows(place: Mapping[str, Any], rows: int) -> np.ndarray:
    """Numbers of the rows that lie at a place: as listed, all, or every n-th and the others."""
    if place["period"] == 0:
        return np.array(place["rows"], dtype=np.intp)
    if place["period"] == 1:
        return np.arange(rows)
    return np.array([row for row in range(rows) if (row % place["period"] == 0) == place["wide"]], dtype=np.intp)


def _equal_floats(graph: ir.Graph, name: str, expected: np.ndarray) -> bool:
    found = _array(graph, name)
    return found is not None and found.dtype == np.float32 and np.array_equal(found, expected)


def _different_tables(graph: ir.Graph, checkpoint: Checkpoint) -> Iterator[str]:
    """Rotary tables, or the frequencies of a portable file, that are not what the configuration says."""
    model = empty_model(checkpoint)
    stored = [_array(graph, table_names(kind)[0]) for kind in layer_types(model)]
    positions = max((len(table) for table in stored if table is not None), default=0)
    expected = {} if positions else frequencies(model)
    if positions:
        for kind, tables in rotary_tables(model, positions).items():
            expected.update(zip(table_names(kind), tables, strict=True))
    for name, values in expected.items():
        found = _array(graph, name)
        if found is None or not np.array_equal(found.reshape(-1), values.numpy().reshape(-1)):
            yield name


def _array(graph: ir.Graph, name: str) -> np.ndarray | None:
    value = graph.initializers.get(name)
    if value is None or value.const_value is None:
        return None
    try:
        return value.const_value.numpy()
    except (OSError, ValueError) as error:
        raise ExportError(f"{DATA}: tensor {name} cannot be read; the file is cut off or missing: {error}") from error
