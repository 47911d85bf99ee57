"""What an exported file or folder holds, as hashes: everything but the versions of the programs that wrote it."""

import hashlib
import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx_ir as ir

from edgerazor.plugins.exporters.gguf.read import open_gguf

VERSION = "edgerazor.version"
# The card of an ONNX folder: under its name of today, or under that of version 0.1.
CARDS = ("edgerazor_onnx.json", "edgerazor.json")
TRACERS = ("torch", "onnxscript", "onnx_ir")


def describe_gguf(path: Path) -> dict[str, Any]:
    """Every byte of a GGUF file but its `edgerazor.version`, and its keys and tensors one by one, to say what differs.

    Returns:
        `header` and `data`: sha256 of what stands before the first tensor, and from there on; `keys` and `tensors`:
        `{name: short hash}` in the order of the file.
    """
    file, content = open_gguf(path), path.read_bytes()
    start = min(tensor.start for tensor in file.tensors.values())
    # Key, type 8 (text), length and text of the version; and the padding, which depends on its length.
    written = rb"\x11\0{7}edgerazor\.version\x08\0{3}.\0{7}" + re.escape(file.metadata[VERSION].encode())
    header, count = re.subn(written, b"", content[:start], flags=re.DOTALL)
    assert count == 1
    return {
        "header": _hash(header.rstrip(b"\0")),
        "data": _hash(content[start:]),
        "keys": {key: _short(repr(value).encode()) for key, value in file.metadata.items() if key != VERSION},
        "tensors": {
            name: f"{tensor.decoder.name} {list(tensor.shape)} {_short(file.raw(tensor).tobytes())}"
            for name, tensor in file.tensors.items()
        },
    }


def describe_onnx(folder: Path) -> dict[str, Any]:
    """Every file of an ONNX folder, its graph node by node, and its initializers one by one.

    Returns:
        `files`: `{name: sha256}` of all but graph and card; `card` and `properties`: `{key: short hash}` without the
        version; `initializers`: `{name: type, shape, short hash}`; `graph`: sha256 of nodes, inputs and outputs;
        `traced_by`: versions of the packages that the names of nodes depend on.
    """
    model = ir.load(folder / "model.onnx")
    (card,) = [folder / name for name in CARDS if (folder / name).is_file()]
    others = [path for path in sorted(folder.iterdir()) if path.name not in (card.name, "model.onnx")]
    content = {key: value for key, value in json.loads(card.read_text()).items() if key != "version"}
    properties = {key: text for key, text in model.metadata_props.items() if key != VERSION}
    return {
        "files": {path.name: _hash(path.read_bytes()) for path in others},
        "card": {key: _short(json.dumps(value, sort_keys=True).encode()) for key, value in content.items()},
        "properties": {key: _short(text.encode()) for key, text in properties.items()},
        "initializers": {name: _describe(value) for name, value in model.graph.initializers.items()},
        "graph": _hash("\n".join(_lines(model)).encode()),
        "traced_by": {name: version(name) for name in TRACERS},
    }


def without_names_of_the_tracer(description: dict[str, Any]) -> dict[str, Any]:
    """An ONNX description without what another version of the tracer may call or order otherwise."""
    own = {name: line for name, line in description["initializers"].items() if name.startswith(("model.", "lm_head"))}
    files = {name: line for name, line in description["files"].items() if name != "model.onnx.data"}
    kept = {key: description[key] for key in ("card", "properties")}
    return {**kept, "files": files, "initializers": own}


def _describe(value: ir.Value) -> str:
    assert value.const_value is not None and value.shape is not None
    return f"{value.dtype} {list(value.shape)} {_short(value.const_value.tobytes())}"


def _lines(model: ir.Model) -> list[str]:
    graph = model.graph
    ends = [f"{value.name} {value.type} {value.shape}" for value in (*graph.inputs, *graph.outputs)]
    nodes = [
        f"{node.domain}::{node.op_type} {[value and value.name for value in node.inputs]} "
        f"{[value.name for value in node.outputs]} "
        f"{sorted((name, str(attribute.value)) for name, attribute in node.attributes.items())}"
        for node in graph
    ]
    return [*ends, *nodes, str(sorted(model.opset_imports.items())), str(model.ir_version)]


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _short(content: bytes) -> str:
    return _hash(content)[:16]
