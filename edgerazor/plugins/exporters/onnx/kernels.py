"""Whether this machine has a fast 2-bit product. ONNX Runtime takes a slow one without a word where it has not."""

import time
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgerazor.plugins.exporters.onnx.plan import ONNXPlan
from edgerazor.plugins.exporters.onnx.row_groups import RowGroup

SLOW = 5.0
_RUNS, _ROWS = 7, 2048


def slow_kernel_note(ratio: float) -> str | None:
    """The cure, if a 2-bit product takes that many times as long as a 4-bit one; None if it is fast enough."""
    if ratio < SLOW:
        return None
    return (
        f"warning: on this machine a 2-bit product takes {ratio:.0f} times as long as a 4-bit one (ONNX Runtime has no "
        "fast kernel for its processor); to run the model here, export it with ternary_storage=4bit"
    )


def measure_2bit(plan: ONNXPlan) -> float:
    """Time of a 2-bit product over that of a 4-bit one of the largest shape in the plan, one token; 0 if there is none.

    Raises:
        ImportError: onnxruntime is not installed.
    """
    row_groups = [rows for matrix in plan.multiplied for rows in matrix.row_groups if rows.bits == 2]
    if not row_groups:
        return 0.0
    largest = max(row_groups, key=lambda row_group: row_group.count * row_group.columns)
    return _seconds(largest, 2) / _seconds(largest, 4)


def _seconds(row_group: RowGroup, bits: int) -> float:
    """The shortest of a few runs on codes of zero."""
    import onnxruntime

    rows, blocks = min(row_group.count, _ROWS), row_group.columns // row_group.block
    x = ir.Value(name="x", shape=ir.Shape([1, row_group.columns]), type=ir.TensorType(ir.DataType.FLOAT))
    arrays: dict[str, NDArray[Any]] = {
        "codes": np.full((rows, blocks, row_group.block * bits // 8), 0x88 if bits == 4 else 0xAA, dtype=np.uint8),
        "scales": np.ones((rows, blocks), dtype=np.float32),
    }
    constants = [ir.Value(name=name, const_value=ir.Tensor(array, name=name)) for name, array in arrays.items()]
    attributes = {"K": row_group.columns, "N": rows, "bits": bits, "block_size": row_group.block, "accuracy_level": 4}
    node = ir.node("MatMulNBits", [x, *constants], attributes, domain="com.microsoft")
    node.outputs[0].name, node.outputs[0].type = "y", ir.TensorType(ir.DataType.FLOAT)
    opsets = {"": 23, "com.microsoft": 1}
    graph = ir.Graph([x], node.outputs, nodes=[node], initializers=constants, opset_imports=opsets)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    content = ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    feeds = {"x": np.ones((1, row_group.columns), dtype=np.float32)}
    session.run(None, feeds)
    shortest = float("inf")
    for _ in range(_RUNS):
        start = time.perf_counter()
        session.run(None, feeds)
        shortest = min(shortest, time.perf_counter() - start)
    return shortest
