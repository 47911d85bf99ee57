"""Reading a graph back: codes, scales, and what operators do with them. It shares nothing with what wrote them."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

_SCALE_STEPS = ("Cast", "Unsqueeze", "Expand", "Reshape")


def read_codes(packed: NDArray[np.uint8], bits: int, columns: int) -> NDArray[np.int16]:
    """int16 `[rows, columns]` of signed codes; column c lies in byte c * bits // 8 of a row, low bits first."""
    flat = packed.reshape(packed.shape[0], -1)
    column = np.arange(columns)
    shift = ((column * bits) % 8).astype(np.uint8)
    stored = (flat[:, column * bits // 8] >> shift) & np.uint8((1 << bits) - 1)
    return stored.astype(np.int16) - (1 << (bits - 1))


def read_scales(stored: NDArray[np.generic], groups: int) -> NDArray[np.float32]:
    """float32 `[rows, groups]` from one scale per group or per block."""
    flat = stored.reshape(stored.shape[0], -1).astype(np.float32)
    repeats = flat.shape[1] // groups
    first = flat[:, ::repeats]
    if repeats > 1 and not np.array_equal(np.repeat(first, repeats, axis=1), flat):
        return np.full_like(first, np.nan)
    return first


def operators_fit(graph: ir.Graph, stored: Mapping[str, Any], columns: int) -> bool:
    """Whether every operator that reads stored codes has their scales, width and block, and no zero points.

    Right numbers at a wrong input would compute something else.

    Args:
        graph: of the file.
        stored: where rows of a matrix lie, an entry of `edgerazor.tensors`.
        columns: of the matrix.
    """
    codes = graph.initializers.get(str(stored["codes"]))
    if codes is None:
        return False
    readers = list(_readers(codes))
    return bool(readers) and all(_fits(node, stored, columns) for node in readers)


def _readers(value: ir.Value) -> Iterator[ir.Node]:
    """Operators that a value goes into, also by way of another shape."""
    for node in value.consumers():
        if node.op_type == "Reshape":
            yield from _readers(node.outputs[0])
        else:
            yield node


def _fits(node: ir.Node, stored: Mapping[str, Any], columns: int) -> bool:
    given = {name: attribute.value for name, attribute in node.attributes.items()}
    if stored.get("signed") and node.op_type == "Cast":
        return _times_scales(node, stored)
    if node.op_type == "Gather":
        # A portable table of embeddings: what follows is standard arithmetic, which tests compare with torch.
        return given.get("axis") == 0
    if node.op_type == "DequantizeLinear":
        wanted, place = {"axis": 0, "block_size": stored["block"]}, 1
    elif node.op_type == "MatMulNBits":
        wanted, place = {"K": columns, "bits": stored["bits"], "block_size": stored["block"]}, 2
    elif node.op_type == "GatherBlockQuantized":
        wanted, place = {"bits": stored["bits"], "block_size": stored["block"], "gather_axis": 0, "quantize_axis": 1}, 2
    else:
        return False
    source = node.inputs[place]
    while source is not None and (step := source.producer()) is not None and step.op_type in _SCALE_STEPS:
        source = step.inputs[0]
    no_zero_points = all(value is None for value in node.inputs[place + 1 :])
    return no_zero_points and wanted.items() <= given.items() and source is not None and source.name == stored["scales"]


def _times_scales(node: ir.Node, stored: Mapping[str, Any]) -> bool:
    """Whether codes that became floats are multiplied by their own scales, a group at a time."""
    products = list(_readers(node.outputs[0]))
    if len(products) != 1 or products[0].op_type != "Mul":
        return False
    scales = products[0].inputs[1]
    while scales is not None and (step := scales.producer()) is not None and step.op_type in _SCALE_STEPS:
        scales = step.inputs[0]
    grouped = next(iter(node.outputs[0].consumers()))
    sizes = grouped.inputs[1] if grouped.op_type == "Reshape" else None
    fits = sizes is not None and sizes.const_value is not None and sizes.const_value.numpy()[-1] == stored["block"]
    return fits and scales is not None and scales.name == stored["scales"]
