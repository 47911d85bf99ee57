"""Small changes to a graph: nodes put in before another one, constants, and chains of Reshape made short."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass


class Builder:
    """Puts nodes in before one node.

    Args:
        graph: that the nodes go into.
        before: the node.
        name: that names of values and initializers begin with.
    """

    def __init__(self, graph: ir.Graph, before: ir.Node, name: str):
        self.graph, self.before, self.name = graph, before, name
        self.count = 0

    def node(
        self, kind: str, inputs: Sequence[ir.Value], attributes: Mapping[str, Any] | None = None, *, domain: str = ""
    ) -> ir.Value:
        """A node with one output, which is returned."""
        return self.nodes(kind, inputs, attributes, domain=domain)[0]

    def nodes(
        self,
        kind: str,
        inputs: Sequence[ir.Value],
        attributes: Mapping[str, Any] | None = None,
        *,
        domain: str = "",
        outputs: int = 1,
    ) -> Sequence[ir.Value]:
        """The outputs of a node."""
        node = ir.node(kind, inputs, attributes, domain=domain, num_outputs=outputs, version=1 if domain else None)
        for output in node.outputs:
            output.name = f"{self.name}.{self.count}"
            self.count += 1
        self.graph.insert_before(self.before, node)
        return node.outputs

    def reshape(self, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        """The same values; 0 keeps an axis."""
        name = "edgerazor.shape_" + "_".join(map(str, shape)).replace("-1", "rest")
        return self.node("Reshape", [value, self.shared(name, shape)])

    def constant(self, name: str, array: NDArray[Any]) -> ir.Value:
        """An initializer of the nodes."""
        return add_initializer(self.graph, f"{self.name}.{name}", array)

    def initializer(self, name: str, array: NDArray[Any]) -> ir.Value:
        """An initializer by its full name."""
        return add_initializer(self.graph, name, array)

    def shared(self, name: str, values: Sequence[int]) -> ir.Value:
        """int64 numbers that other nodes use, too."""
        return shared_numbers(self.graph, name, values)

    def join(self, name: str, values: Sequence[ir.Value]) -> ir.Value:
        """An initializer of the rows of several, which leave the graph."""
        joined = self.constant(name, np.concatenate([array_of(value) for value in values]))
        for value in values:
            del self.graph.initializers[str(value.name)]
        return joined

    def replace(self, node: ir.Node, value: ir.Value) -> None:
        """Use `value` for the only output of a node, which leaves the graph."""
        old = node.outputs[0]
        value.shape, value.type = old.shape, old.type
        outputs = self.graph.outputs
        for index, output in enumerate(outputs):
            if output is old:
                value.name, old.name = old.name, None
                outputs[index] = value
        ir.convenience.replace_all_uses_with(old, value)
        self.graph.remove(node, safe=True)


def add_initializer(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    """A new initializer."""
    value = ir.Value(name=name, const_value=ir.Tensor(array, name=name))
    value.shape, value.type = ir.Shape(array.shape), ir.TensorType(ir.DataType.from_numpy(array.dtype))
    graph.initializers[name] = value
    return value


def shared_numbers(graph: ir.Graph, name: str, values: Sequence[int]) -> ir.Value:
    """An int64 initializer, made once."""
    return graph.initializers.get(name) or add_initializer(graph, name, np.array(values, dtype=np.int64))


def array_of(value: ir.Value) -> NDArray[Any]:
    """What an initializer holds."""
    assert value.const_value is not None
    return value.const_value.numpy()


def simplify_reshapes(model: ir.Model) -> None:
    """Chains of Reshape become one or none, with a constant shape that copies the free axes (0) of its input."""
    graph = model.graph
    for node in list(graph):
        source, output = node.inputs[0] if node.inputs else None, node.outputs[0]
        if node.op_type != "Reshape" or source is None or output.shape is None:
            continue
        while (
            (before := source.producer()) is not None and before.op_type == "Reshape" and before.inputs[0] is not None
        ):
            source = before.inputs[0]
        if source.shape == output.shape:
            ir.convenience.replace_all_uses_with(output, source)
        elif (shape := _copying(source, output)) is not None:
            node.replace_input_with(0, source)
            name = "edgerazor.shape_" + "_".join(map(str, shape))
            node.replace_input_with(1, shared_numbers(graph, name, shape))
            node.attributes["allowzero"] = ir.AttrInt64("allowzero", 0)
    RemoveUnusedNodesPass()(model)


def _copying(source: ir.Value, output: ir.Value) -> list[int] | None:
    """Sizes of an output, 0 where it copies a free axis of the source at the same place."""
    if source.shape is None or output.shape is None:
        return None
    sizes: list[int] = []
    for index, size in enumerate(output.shape):
        if isinstance(size, int):
            sizes.append(size)
        elif index < len(source.shape) and source.shape[index] == size:
            sizes.append(0)
        else:
            return None
    return sizes
