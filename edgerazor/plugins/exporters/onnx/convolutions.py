"""Convolutions in a graph: ONNX Runtime has no kernel that multiplies their codes, so the graph makes weights of them.

Codes are integers of their own width (INT2, INT4, INT8), scales float16 as in the checkpoint. Cast and Mul are folded
when a session is opened, so a call costs what one with float32 weights costs; DequantizeLinear is left in place by
ONNX Runtime, which would compute every weight anew in each call.
"""

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from edgerazor.core.tensor import QuantizedTensor
from edgerazor.plugins.exporters.onnx.graph import Builder, add_initializer, array_of
from edgerazor.plugins.exporters.onnx.placeholders import DOMAIN, symbolic
from edgerazor.plugins.exporters.onnx.plan import Matrix
from edgerazor.plugins.exporters.onnx.row_groups import RowGroup

WEIGHT = "Weight"
TYPES: dict[int, Any] = {2: ml_dtypes.int2, 4: ml_dtypes.int4, 8: np.int8}


class CodeRows(nn.Module):
    """Codes of some rows as int8 `[count, columns]`, and their scales, float16 `[count, groups]`."""

    codes: Tensor
    scales: Tensor

    def __init__(self, row_group: RowGroup, tensor: QuantizedTensor):
        super().__init__()
        index = torch.from_numpy(row_group.rows.of(len(tensor.codes)))
        self.register_buffer("codes", tensor.codes[index])
        self.register_buffer("scales", tensor.scale[index])


class PlaceholderConvolution(nn.Module):
    """A convolution whose weight is a placeholder; `lowering` puts operators in its place.

    Args:
        matrix: as planned.
        tensor: codes and scales.
        layer: of the same stride, padding, dilation and groups; its weight is not used.
        bias: float32, or None.
    """

    bias: Tensor | None

    def __init__(self, matrix: Matrix, tensor: QuantizedTensor, layer: Any, bias: Tensor | None):
        super().__init__()
        assert matrix.shape is not None
        self.module, self.shape = matrix.module, matrix.shape
        self.parts = nn.ModuleList(CodeRows(row_group, tensor) for row_group in matrix.row_groups)
        self.register_buffer("bias", bias)
        # Inside a list, so that its weight is no parameter of the model.
        self._layer = [layer]

    @property
    def weight(self) -> Tensor:
        """Nothing, in the dtype that models ask their first convolution for."""
        return torch.empty(0, dtype=torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        inputs = tuple(tensor for rows in self.parts for tensor in (rows.codes, rows.scales))
        weight: Any = symbolic(
            f"{DOMAIN}::{WEIGHT}", inputs, {"module": self.module}, dtype=torch.float32, shape=self.shape, version=1
        )
        return self._layer[0]._conv_forward(x, weight, self.bias)  # type: ignore[no-any-return]


def lower_weight(build: Builder, node: ir.Node, matrix: Matrix) -> list[tuple[ir.Value, ir.Value]]:
    """Replace a placeholder by operators that give the weight; returns the initializers of codes and scales."""
    assert matrix.shape is not None
    stored = [_stored(build, node, index, rows) for index, rows in enumerate(matrix.row_groups)]
    values = [_values(build, *pair, rows) for pair, rows in zip(stored, matrix.row_groups, strict=True)]
    whole = values[0] if len(values) == 1 else _in_order(build, values, matrix)
    build.replace(node, build.reshape(whole, matrix.shape))
    return stored


def _stored(build: Builder, node: ir.Node, index: int, row_group: RowGroup) -> tuple[ir.Value, ir.Value]:
    """The initializers, codes of their own width now."""
    codes, scales = node.inputs[2 * index : 2 * index + 2]
    assert codes is not None and scales is not None
    name, typed = str(codes.name), array_of(codes).astype(TYPES[row_group.bits])
    del build.graph.initializers[name]
    return add_initializer(build.graph, name, typed), scales


def _values(build: Builder, codes: ir.Value, scales: ir.Value, row_group: RowGroup) -> ir.Value:
    """float32 `[count, columns]`."""
    groups = row_group.columns // row_group.group_size
    code, scale = (build.node("Cast", [value], {"to": int(ir.DataType.FLOAT)}) for value in (codes, scales))
    code = build.reshape(code, [row_group.count, groups, row_group.group_size])
    product = build.node("Mul", [code, build.reshape(scale, [row_group.count, groups, 1])])
    return build.reshape(product, [row_group.count, row_group.columns])


def _in_order(build: Builder, values: Sequence[ir.Value], matrix: Matrix) -> ir.Value:
    """Rows of two widths in their order: interleaved, or gathered where they follow no period."""
    period, columns = matrix.row_groups[0].rows.period, matrix.row_groups[0].columns
    if period == 0:
        rows = sum(row_group.count for row_group in matrix.row_groups)
        stored = np.concatenate([row_group.rows.of(rows) for row_group in matrix.row_groups])
        order = build.constant("order", np.argsort(stored).astype(np.int64))
        return build.node("Gather", [build.node("Concat", values, {"axis": 0}), order], {"axis": 0})
    count, (wide, narrow) = matrix.row_groups[0].count, values
    parts = [build.reshape(wide, [count, 1, columns]), build.reshape(narrow, [count, period - 1, columns])]
    return build.node("Concat", parts, {"axis": 1})
