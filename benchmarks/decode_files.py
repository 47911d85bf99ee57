"""The files of the decode benchmark: every format of every width, made once, and the bytes that a token takes."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from edgerazor.checkpoint import open_checkpoint
from edgerazor.core.discovery import load_plugins
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import ExportError
from edgerazor.export.export import export_to
from edgerazor.plugins.exporters.gguf.read import open_gguf
from edgerazor.plugins.exporters.gguf.report import general_keys
from edgerazor.plugins.exporters.gguf.write import write_gguf

# Settings that are tried in turn until one fits the model.
TERNARY = 'types=[{match: "model.layers.*", type: TQ2_0}]'
FORMATS: dict[str, tuple[str, list[list[str]]]] = {
    "gguf": ("gguf", [["profile=size", TERNARY], ["profile=size"]]),
    "gguf-4bit": ("gguf", [["types=[{match: '*', type: Q4_0}]"]]),
    "onnx": ("onnx", [["context_length=1024"], []]),
    "onnx-4bit": ("onnx", [["context_length=1024", "ternary_storage=4bit"], ["ternary_storage=4bit"]]),
    "compressed-tensors": ("compressed-tensors", [[]]),
}
# On the way from a constant to a product, with the number of inputs that carry weights.
_STEPS = {"Cast": 1, "Unsqueeze": 1, "Expand": 1, "Reshape": 1, "DequantizeLinear": 2}
DENSE, PACKED = "gguf-f16", "packed"
F16 = 1


def file_of(work: Path, packed: Path, width: str, form: str, console: Console) -> Path:
    """A checkpoint in one format, in `work`.

    Raises:
        ExportError: the format does not hold this model.
    """
    if form == PACKED:
        return packed
    ending = ".gguf" if form.startswith("gguf") else ""
    path = work / f"{width}-{form}{ending}"
    if path.exists():
        return path
    console.print(f"writing {path.name}", highlight=False)
    if form == DENSE:
        write_dense(packed, path)
        return path
    exporter, attempts = FORMATS[form]
    return _export(packed, exporter, path, attempts)


def _export(packed: Path, exporter: str, path: Path, attempts: Sequence[list[str]]) -> Path:
    *first, last = attempts
    for settings in first:
        try:
            export_to(packed, exporter, path, settings, registry=load_plugins())
            return path
        except ExportError:
            continue
    export_to(packed, exporter, path, last, registry=load_plugins())
    return path


class _Dense:
    """A checkpoint whose matrices are read de-quantized, in float16."""

    def __init__(self, opened: Any):
        self._opened = opened

    def read(self, name: str) -> torch.Tensor:
        value = self._opened.read(name)
        return value.dequantize(torch.float32).half() if isinstance(value, QuantizedTensor) else value


def write_dense(packed: Path, path: Path) -> None:
    """The de-quantized weights in 16 bits: what a converter makes of a saved student."""
    opened, registry = open_checkpoint(packed), load_plugins()
    plan = registry.build(registry.params("exporter", "gguf", path=str(path))).planned(opened)
    entries = [
        dataclasses.replace(entry, type_name="F16", type_id=F16, bytes=2 * entry.facts.weights)
        if entry.facts.quantized
        else entry
        for entry in plan.entries
    ]
    keys = {**general_keys(opened, plan), **plan.metadata, "general.file_type": F16}
    dense = dataclasses.replace(plan, entries=entries)
    write_gguf(path, plan.architecture.name, keys, dense, _Dense(opened), lambda done, total: None)  # type: ignore[arg-type]


def bytes_per_token(path: Path) -> int | None:
    """What products with one token's inputs read of a file; None where a file does not tell.

    An embedding is looked up, of which a row is read, unless the head is the same tensor.
    """
    if path.suffix == ".gguf":
        tensors = open_gguf(path).tensors
        looked_up = "token_embd.weight" if "output.weight" in tensors else None
        read = (tensor for name, tensor in tensors.items() if len(tensor.shape) > 1 and name != looked_up)
        return sum(tensor.bytes for tensor in read)
    return _graph_bytes(path / "model.onnx") if (path / "model.onnx").exists() else None


def _graph_bytes(path: Path) -> int:
    """Of the constants that products are computed with, by whatever way they come there."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    makers = {output: node for node in graph.node for output in node.output}
    sizes = {tensor.name: _stored(tensor) for tensor in graph.initializer}
    waiting = [
        name for node in graph.node if node.op_type in ("MatMulNBits", "MatMul", "Gemm") for name in node.input[1:]
    ]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in sizes:
            found.add(name)
        elif (maker := makers.get(name)) is not None and maker.op_type in _STEPS:
            waiting += maker.input[: _STEPS[maker.op_type]]
    return sum(sizes[name] for name in found)


def _stored(tensor: Any) -> int:
    outside = {entry.key: entry.value for entry in tensor.external_data}
    return int(outside["length"]) if "length" in outside else len(tensor.raw_data)
