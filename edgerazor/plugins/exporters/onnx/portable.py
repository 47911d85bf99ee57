"""The same numbers by operators of the ONNX standard alone (ONNX section 2.5)."""

from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgerazor.plugins.exporters.onnx.graph import Builder, array_of
from edgerazor.plugins.exporters.onnx.row_groups import RowGroup

TRANSPOSED = ".transposed"
# The first versions of operator set and format that know the type.
OPSETS = {2: (25, 13), 4: (21, 10), 8: (21, 10)}
_TYPES: dict[int, Any] = {2: ml_dtypes.int2, 4: ml_dtypes.int4, 8: np.int8}


def product(build: Builder, x: ir.Value, codes: ir.Value, scales: ir.Value, row_group: RowGroup) -> ir.Value:
    """DequantizeLinear of a transposed copy of the codes, then MatMul: what ONNX Runtime fuses when it loads."""
    repeated = np.repeat(array_of(scales).astype(np.float32), row_group.group_size // row_group.block, axis=1)
    signed = signed_codes(array_of(codes), row_group.bits).T.astype(_TYPES[row_group.bits])
    inputs = [
        build.initializer(f"{codes.name}{TRANSPOSED}", np.ascontiguousarray(signed)),
        build.initializer(f"{scales.name}{TRANSPOSED}", np.ascontiguousarray(repeated.T)),
    ]
    weight = build.node("DequantizeLinear", inputs, {"axis": 0, "block_size": row_group.block})
    return build.node("MatMul", [x, weight])


def look_up(build: Builder, ids: ir.Value, codes: ir.Value, scales: ir.Value, row_group: RowGroup) -> ir.Value:
    """Bytes of the rows that are asked for, taken apart, times their scales."""
    rows = build.node("Gather", [codes, ids], {"axis": 0})
    last = build.shared("edgerazor.last_axis", [-1])
    if row_group.bits < 8:
        mask = build.constant("mask", np.array((1 << row_group.bits) - 1, dtype=np.uint8))
        places = []
        for shift in range(0, 8, row_group.bits):
            amount = build.constant(f"shift_{shift}", np.array(shift, dtype=np.uint8))
            moved = build.node("BitShift", [rows, amount], {"direction": "RIGHT"})
            places.append(build.node("Unsqueeze", [build.node("BitwiseAnd", [moved, mask]), last]))
        rows = build.node("Concat", places, {"axis": -1})
    groups = build.reshape(rows, [0, 0, row_group.columns // row_group.group_size, row_group.group_size])
    middle = build.constant("middle", np.array(1 << (row_group.bits - 1), dtype=np.float32))
    signed = build.node("Sub", [build.node("Cast", [groups], {"to": int(ir.DataType.FLOAT)}), middle])
    scale = build.node("Cast", [build.node("Gather", [scales, ids], {"axis": 0})], {"to": int(ir.DataType.FLOAT)})
    return build.reshape(build.node("Mul", [signed, build.node("Unsqueeze", [scale, last])]), [0, 0, row_group.columns])


def signed_codes(packed: NDArray[np.uint8], bits: int) -> NDArray[np.int8]:
    """int8 `[rows, columns]` of packed operands."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    stored = (packed[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return (stored.reshape(len(packed), -1).astype(np.int16) - (1 << (bits - 1))).astype(np.int8)
