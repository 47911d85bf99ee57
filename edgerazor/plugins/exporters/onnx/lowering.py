"""From placeholders to operators. Matrices with one input (q, k, v; gate, up) become one product, split after it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgerazor.plugins.exporters.onnx import portable
from edgerazor.plugins.exporters.onnx.convolutions import WEIGHT, lower_weight
from edgerazor.plugins.exporters.onnx.graph import Builder
from edgerazor.plugins.exporters.onnx.placeholders import DOMAIN, LOOK_UP, PRODUCT
from edgerazor.plugins.exporters.onnx.plan import Matrix
from edgerazor.plugins.exporters.onnx.portable import OPSETS
from edgerazor.plugins.exporters.onnx.row_groups import RowGroup

_MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Place:
    """Where a row group of a matrix lies in the file.

    Attributes:
        codes, scales: names of initializers.
        first: first row there; siblings share initializers.
        transposed: rows are columns there, and codes signed numbers.
        signed: codes are signed numbers.
    """

    codes: str
    scales: str
    first: int
    transposed: bool
    signed: bool = False


Places = dict[tuple[str, int], list[Place]]


def lower(
    model: ir.Model, matrices: Mapping[str, Matrix], *, accuracy_level: int, use_standard: bool = False
) -> Places:
    """Replace every placeholder.

    Args:
        model: traced.
        matrices: by module.
        accuracy_level: of the products.
        use_standard: operators of the standard only.

    Returns:
        Where each row group of each matrix lies, by module and number; a portable tied table lies in two places.
    """
    places = _Lowering(model.graph, matrices, accuracy_level, use_standard).run()
    model.opset_imports.pop(DOMAIN, None)
    typed = [matrix for matrix in matrices.values() if use_standard or matrix.shape is not None]
    needed = [OPSETS[row_group.bits] for matrix in typed for row_group in matrix.row_groups]
    opset, version = max([(model.opset_imports[""], model.ir_version), *needed])
    model.opset_imports[""], model.ir_version = opset, version
    if not use_standard:
        model.opset_imports[_MICROSOFT] = 1
    return places


class _Lowering:
    def __init__(self, graph: ir.Graph, matrices: Mapping[str, Matrix], accuracy_level: int, use_standard: bool):
        self.graph, self.matrices = graph, matrices
        self.accuracy_level, self.use_standard = accuracy_level, use_standard
        self.places: Places = {}
        self.expanded: dict[str, ir.Value] = {}

    def run(self) -> Places:
        groups: dict[object, list[ir.Node]] = {}
        for node in self.graph:
            if node.domain == DOMAIN and node.op_type == PRODUCT:
                groups.setdefault(self._kind(node), []).append(node)
            elif node.domain == DOMAIN and node.op_type == LOOK_UP:
                self._look_up(node)
            elif node.domain == DOMAIN and node.op_type == WEIGHT:
                self._weight(node)
        for nodes in groups.values():
            self._product(nodes)
        return self.places

    def _kind(self, node: ir.Node) -> object:
        """Products of one kind can be one: same input, and the same widths, blocks and periods."""
        row_groups = self._matrix(node).row_groups
        shared = any(len(list(value.uses())) > 1 for value in node.inputs[1:] if value is not None)
        if shared or row_groups[0].rows.period == 0:
            return id(node)
        kinds = ((rows.bits, rows.block, rows.group_size, rows.rows.period) for rows in row_groups)
        return id(node.inputs[0]), tuple(kinds)

    def _matrix(self, node: ir.Node) -> Matrix:
        return self.matrices[node.attributes["module"].as_string()]

    def _product(self, nodes: Sequence[ir.Node]) -> None:
        matrices = [self._matrix(node) for node in nodes]
        build = Builder(self.graph, nodes[0], f"{matrices[0].module}.product")
        x = nodes[0].inputs[0]
        assert x is not None
        outputs = [self._row_group_product(build, x, nodes, index) for index in range(len(matrices[0].row_groups))]
        rows = [sum(row_group.count for row_group in matrix.row_groups) for matrix in matrices]
        axes = len(x.shape or (0, 0, 0))
        y = outputs[0] if len(outputs) == 1 else self._in_order(build, outputs, matrices[0], sum(rows), axes)
        if len(nodes) == 1:
            results: Sequence[ir.Value] = [y]
        else:
            sizes = build.constant("sizes", np.array(rows, dtype=np.int64))
            results = build.nodes("Split", [y, sizes], {"axis": -1}, outputs=len(nodes))
        for node, result in zip(nodes, results, strict=True):
            build.replace(node, result)

    def _row_group_product(self, build: Builder, x: ir.Value, nodes: Sequence[ir.Node], index: int) -> ir.Value:
        """MatMulNBits over the rows of one width of all the matrices."""
        row_groups = [self._matrix(node).row_groups[index] for node in nodes]
        operands = [(_input(node, 1 + 2 * index), _input(node, 2 + 2 * index)) for node in nodes]
        codes, scales = operands[0]
        if len(nodes) > 1:
            codes = build.join(f"parts.{index}.codes", [codes for codes, _ in operands])
            scales = build.join(f"parts.{index}.scales", [scales for _, scales in operands])
        first = 0
        for node, row_group in zip(nodes, row_groups, strict=True):
            self._note(self._matrix(node).module, index, codes, scales, first, transposed=self.use_standard)
            first += row_group.count
        if self.use_standard:
            return portable.product(build, x, codes, scales, row_groups[0])
        attributes = {
            "K": row_groups[0].columns,
            "N": first,
            "bits": row_groups[0].bits,
            "block_size": row_groups[0].block,
            "accuracy_level": self.accuracy_level,
        }
        inputs = [x, codes, self._expanded(build, scales, row_groups[0], first)]
        return build.node("MatMulNBits", inputs, attributes, domain=_MICROSOFT)

    def _in_order(self, build: Builder, outputs: Sequence[ir.Value], matrix: Matrix, rows: int, axes: int) -> ir.Value:
        """Rows of two widths back in their order: interleaved, or gathered where they follow no period."""
        period = matrix.row_groups[0].rows.period
        if period == 0:
            stored = np.concatenate([row_group.rows.of(rows) for row_group in matrix.row_groups])
            order = build.constant("order", np.argsort(stored).astype(np.int32))
            return build.node("Gather", [build.node("Concat", outputs, {"axis": -1}), order], {"axis": -1})
        (wide, narrow), before = outputs, [0] * (axes - 1)
        columns = [build.reshape(wide, [*before, -1, 1]), build.reshape(narrow, [*before, -1, period - 1])]
        return build.reshape(build.node("Concat", columns, {"axis": -1}), [*before, rows])

    def _look_up(self, node: ir.Node) -> None:
        module, index = node.attributes["module"].as_string(), node.attributes["row_group"].as_int()
        row_group = self.matrices[module].row_groups[index]
        ids, codes, scales = (_input(node, place) for place in range(3))
        self._note(module, index, codes, scales, 0)
        build = Builder(self.graph, node, f"{module}.look_up.{index}")
        if self.use_standard:
            build.replace(node, portable.look_up(build, ids, codes, scales, row_group))
            return
        flat = build.reshape(codes, [row_group.count, row_group.columns * row_group.bits // 8])
        attributes = {"bits": row_group.bits, "block_size": row_group.block, "gather_axis": 0, "quantize_axis": 1}
        inputs = [flat, ids, self._expanded(build, scales, row_group, row_group.count)]
        build.replace(node, build.node("GatherBlockQuantized", inputs, attributes, domain=_MICROSOFT))

    def _weight(self, node: ir.Node) -> None:
        matrix = self._matrix(node)
        stored = lower_weight(Builder(self.graph, node, f"{matrix.module}.weight"), node, matrix)
        for index, (codes, scales) in enumerate(stored):
            place = Place(str(codes.name), str(scales.name), 0, transposed=False, signed=True)
            self.places[matrix.module, index] = [place]

    def _note(
        self, module: str, index: int, codes: ir.Value, scales: ir.Value, first: int, *, transposed: bool = False
    ) -> None:
        end = portable.TRANSPOSED if transposed else ""
        place = Place(f"{codes.name}{end}", f"{scales.name}{end}", first, transposed)
        known = self.places.setdefault((module, index), [])
        if place not in known:
            known.append(place)

    def _expanded(self, build: Builder, scales: ir.Value, row_group: RowGroup, rows: int) -> ir.Value:
        """One float32 scale per block, from one float16 scale per group; the engine computes it once, when it loads."""
        name = str(scales.name)
        if name not in self.expanded:
            groups, repeats = row_group.columns // row_group.group_size, row_group.group_size // row_group.block
            value = build.node("Cast", [scales], {"to": int(ir.DataType.FLOAT)})
            if repeats > 1:
                last = build.shared("edgerazor.last_axis", [-1])
                shape = build.shared(f"edgerazor.shape_{rows}_{groups}_{repeats}", [rows, groups, repeats])
                value = build.node("Expand", [build.node("Unsqueeze", [value, last]), shape])
                value = build.reshape(value, [rows, groups * repeats])
            self.expanded[name] = value
        return self.expanded[name]


def _input(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None
    return value
