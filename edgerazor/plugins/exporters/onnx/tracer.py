"""Tracing, and what every traced graph goes through: constants folded, idle nodes gone, initializers named."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes import common as passes
from onnxscript import optimizer
from torch import nn

from edgerazor.errors import ExportError, first_line

OPSET = 23


def traced(wrapper: nn.Module, given: tuple[Any, ...], free: Any, inputs: list[str], outputs: list[str]) -> ir.Model:
    """The graph of a module, tidied; its initializers bear the names of the tensors in the model.

    Args:
        wrapper: has the model as `model`.
        given: example inputs; no size of a free axis is 1, which tracing would take for a constant.
        free: axes of any size, as torch.export takes them.
        inputs, outputs: names.

    Raises:
        ExportError: the model does what cannot be traced.
    """
    with _quiet_tracer():
        try:
            program = torch.onnx.export(
                wrapper,
                given,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=free,
                input_names=inputs,
                output_names=outputs,
                optimize=False,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise ExportError(f"the model cannot be traced: {first_line(error)}") from error
    assert program is not None
    _tidy(program.model)
    _name_initializers(program.model.graph, wrapper)
    return program.model


@contextmanager
def _quiet_tracer() -> Iterator[None]:
    """Without the tracer's remarks on packages and internals that have nothing to do with the model."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)


def _tidy(model: ir.Model) -> None:
    """Constants folded and repeated nodes merged. Initializers that happen to be equal stay apart, each with its name;
    what the tracer noted about source files goes."""
    passes.InlinePass()(model)
    # A weight that is used transposed stays as it is, under its name; engines turn it when they load.
    optimizer.fold_constants(model, should_fold=_may_fold)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    _bypass_idle(model.graph)
    passes.RemoveUnusedNodesPass()(model)
    _merge_numbers(model.graph)
    passes.CommonSubexpressionEliminationPass()(model)
    passes.OutputFixPass()(model)
    passes.NameFixPass()(model)
    passes.RemoveUnusedFunctionsPass()(model)
    passes.RemoveUnusedOpsetsPass()(model)
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None


def _may_fold(node: ir.Node) -> bool | None:
    """No where weights are transposed or cut, or norms get an offset: their tensors stay as the checkpoint has them."""
    weights = [value for value in node.inputs if value is not None and value.is_initializer()]
    offset = node.op_type == "Add" and any(len(value.shape or ()) == 1 for value in weights)
    cut = node.op_type == "Slice" and any(
        value.dtype is not None and value.dtype.is_floating_point() for value in weights
    )
    return False if node.op_type == "Transpose" or offset or cut else None


def _bypass_idle(graph: ir.Graph) -> None:
    """Nodes that return what they are given: Identity, a Transpose of a Transpose back, a Slice of everything."""
    for node in graph:
        source = node.inputs[0] if node.inputs else None
        if node.op_type == "Transpose" and source is not None:
            before = source.producer()
            source = before.inputs[0] if before is not None and _undoes(node, before) else None
        elif node.op_type != "Identity" and not _slices_all(node):
            continue
        if source is not None and not any(node.outputs[0] is output for output in graph.outputs):
            ir.convenience.replace_all_uses_with(node.outputs[0], source)


def _undoes(node: ir.Node, before: ir.Node) -> bool:
    if before.op_type != "Transpose" or "perm" not in before.attributes or "perm" not in node.attributes:
        return False
    first, second = before.attributes["perm"].as_ints(), node.attributes["perm"].as_ints()
    return [first[axis] for axis in second] == list(range(len(first)))


def _slices_all(node: ir.Node) -> bool:
    if node.op_type != "Slice" or len(node.inputs) != 5:
        return False
    inputs = (value.const_value for value in node.inputs[1:] if value is not None)
    numbers = [constant.numpy() for constant in inputs if constant is not None]
    if len(numbers) != 4:
        return False
    starts, ends, _, steps = numbers
    return bool(np.all(starts == 0) and np.all(ends == np.iinfo(np.int64).max) and np.all(steps == 1))


def _merge_numbers(graph: ir.Graph) -> None:
    """Equal shapes and axes become one initializer, so that nodes that compute with them are seen to be equal."""
    seen: dict[tuple[Any, ...], ir.Value] = {}
    for name, value in list(graph.initializers.items()):
        if value.const_value is None or value.const_value.dtype != ir.DataType.INT64:
            continue
        array = value.const_value.numpy()
        kept = seen.setdefault((array.shape, array.tobytes()), value)
        if kept is not value:
            ir.convenience.replace_all_uses_with(value, kept)
            del graph.initializers[name]


def _name_initializers(graph: ir.Graph, wrapper: nn.Module) -> None:
    """One initializer per tensor, named as in the model; a tensor with two names, as a tied one, bears the first."""
    first: dict[int, str] = {}
    tensors = chain(wrapper.named_buffers(remove_duplicate=False), wrapper.named_parameters(remove_duplicate=False))
    for name, tensor in tensors:
        wanted = first.setdefault(id(tensor), name.removeprefix("model."))
        value = graph.initializers.get(name)
        if value is None or wanted == name:
            continue
        del graph.initializers[name]
        if wanted in graph.initializers:
            ir.convenience.replace_all_uses_with(value, graph.initializers[wanted])
        else:
            value.name = wanted
            graph.initializers[wanted] = value


def axis_of(value: ir.Value, index: int) -> Any:
    """Size or name of an axis."""
    assert value.shape is not None
    return value.shape[index]
