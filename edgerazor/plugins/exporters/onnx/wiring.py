"""Whether operators take the tensors they should: right numbers at a wrong input compute something else."""

from collections.abc import Iterator, Mapping
from typing import Any

import onnx_ir as ir

_SCALE_STEPS = ("Cast", "Unsqueeze", "Expand", "Reshape")


def is_wired(graph: ir.Graph, part: Mapping[str, Any], columns: int) -> bool:
    """Whether every operator that reads the codes of a part has its scales, width and block, and no zero points.

    Args:
        graph: of the file.
        part: an entry of `edgerazor.tensors`.
        columns: of the matrix.
    """
    codes = graph.initializers.get(str(part["codes"]))
    if codes is None:
        return False
    readers = list(_readers(codes))
    return bool(readers) and all(_fits(node, part, columns) for node in readers)


def _readers(value: ir.Value) -> Iterator[ir.Node]:
    """Operators that a value goes into, also by way of another shape."""
    for node in value.consumers():
        if node.op_type == "Reshape":
            yield from _readers(node.outputs[0])
        else:
            yield node


def _fits(node: ir.Node, part: Mapping[str, Any], columns: int) -> bool:
    given = {name: attribute.value for name, attribute in node.attributes.items()}
    if node.op_type == "Gather":
        # A portable table of embeddings: what follows is standard arithmetic, which tests compare with torch.
        return given.get("axis") == 0
    if node.op_type == "DequantizeLinear":
        wanted, place = {"axis": 0, "block_size": part["block"]}, 1
    elif node.op_type == "MatMulNBits":
        wanted, place = {"K": columns, "bits": part["bits"], "block_size": part["block"]}, 2
    elif node.op_type == "GatherBlockQuantized":
        wanted, place = {"bits": part["bits"], "block_size": part["block"], "gather_axis": 0, "quantize_axis": 1}, 2
    else:
        return False
    source = node.inputs[place]
    while source is not None and (step := source.producer()) is not None and step.op_type in _SCALE_STEPS:
        source = step.inputs[0]
    no_zero_points = all(one is None for one in node.inputs[place + 1 :])
    return no_zero_points and wanted.items() <= given.items() and source is not None and source.name == part["scales"]
