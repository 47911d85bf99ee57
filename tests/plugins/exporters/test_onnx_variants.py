"""Exports beside the usual one: standard operators only, tables and rows of two widths in any order, other machines."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf_cases import BODIES, Packed, pack_case, rules
from onnx_cases import make_onnx

from edgerazor.checkpoint import PackedCheckpoint, load_model, open_checkpoint
from edgerazor.core.registry import Registry
from edgerazor.errors import ExportError, PluginError
from edgerazor.inference.open_runtime import open_runtime

ir = pytest.importorskip("onnx_ir")
pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.slow
SMALL = {"num_hidden_layers": 1, "vocab_size": 320}
SQMP = {"name": "sqmp", "high_ratio": 0.125, "group_size": 32}


def operators(path: Path) -> list[str]:
    return [node.op_type for node in ir.load(path / "model.onnx").graph]


def check_equal_to_torch(path: Path, checkpoint: PackedCheckpoint, registry: Registry) -> None:
    """Verified, and at level 0 the logits of torch for a prompt, a further piece and a single token."""
    assert make_onnx(registry, path).verify(path, checkpoint).different == ()
    ids = torch.randint(0, 250, (21,), generator=torch.Generator().manual_seed(3)).tolist()
    model = load_model(checkpoint.folder, dtype=torch.float32, dequantize=True)
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([ids])).logits[0].numpy()
    runtime = open_runtime(path, registry=registry)
    pieces = [runtime.feed(part, every=True) for part in (ids[:12], ids[12:20], ids[20:])]
    assert np.linalg.norm(np.concatenate(pieces) - expected) < 5e-6 * np.linalg.norm(expected)
    runtime.close()


PORTABLE: dict[str, dict[str, Any]] = {
    "qwen3 of mixed rows, tied": {"weights": rules(BODIES["2.79"], 64)},
    "llama of 8 bits and floats, untied": {
        "family": "llama",
        "tie_word_embeddings": False,
        "weights": [{"match": ["*.mlp.*", "*.embed_tokens"], "quantizer": {**BODIES["8"], "group_size": 64}}],
    },
}


@pytest.mark.parametrize("case", PORTABLE)
def test_portable_files_have_standard_operators_only(case: str, registry: Registry, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(pack_case(tmp_path, registry, **{**SMALL, **PORTABLE[case]}))
    path = tmp_path / "out"
    make_onnx(registry, path, portable=True, accuracy_level=0).export(checkpoint, path)
    model = ir.load(path / "model.onnx")
    assert set(model.opset_imports) == {""} and {node.domain for node in model.graph} == {""}
    assert all(list(value.uses()) for value in model.graph.initializers.values())
    check_equal_to_torch(path, checkpoint, registry)
    assert json.loads((path / "genai_config.json").read_text())["search"]["past_present_share_buffer"] is False


CHECKPOINTS: dict[str, dict[str, Any]] = {
    "a tied table of rows of two widths": {"weights": [{"match": "*", "quantizer": SQMP}]},
    "rows in no fixed period": {
        "weights": rules({"name": "sqmp", "high_ratio": 0.25, "placement": "variance_rows"}, 32)
    },
    "widths inside rows": {"weights": rules({"name": "sqmp", "high_ratio": 0.25, "placement": "variance_groups"}, 32)},
    "one scale per row of 960": {
        "hidden_size": 960,
        "intermediate_size": 128,
        "weights": [{"match": "*.mlp.*", "quantizer": {"name": "ternary"}}, *rules(BODIES["1.88"], 64)],
    },
    "groups of 48": {
        "hidden_size": 192,
        "intermediate_size": 96,
        "weights": rules(BODIES["1.58"], 48),
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
    },
    "mobilellm with a shared embedding": {"family": "mobilellm", "share_embedding": True},
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_less_common_checkpoints(case: str, registry: Registry, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(pack_case(tmp_path, registry, **{**SMALL, **CHECKPOINTS[case]}))
    path = tmp_path / "out"
    report = make_onnx(registry, path, accuracy_level=0).export(checkpoint, path)
    check_equal_to_torch(path, checkpoint, registry)
    said = " ".join(report.details["notes"])
    kinds = operators(path)
    expected = {
        "a tied table of rows of two widths": kinds.count("GatherBlockQuantized") == 2 and kinds.count("Where") == 1,
        "rows in no fixed period": "in no fixed period" in said and "Gather" in kinds,
        "groups of 48": "in 4 bits" in said,
    }
    assert expected.get(case, True)


@pytest.fixture(scope="module")
def exported(registry: Registry, packed: Packed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("verify") / "out"
    make_onnx(registry, path).export(packed("llama 1.88-bit g32 tied"), path)
    return path


@pytest.fixture
def changed(exported: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(exported, tmp_path / "changed")
    return tmp_path / "changed"


def swap_codes(graph: Any) -> None:
    first, second = [node for node in graph if node.op_type == "MatMulNBits" and "o_proj" in node.inputs[1].name][::2]
    codes = first.inputs[1], second.inputs[1]
    first.replace_input_with(1, codes[1])
    second.replace_input_with(1, codes[0])


def change_block(graph: Any) -> None:
    node = next(node for node in graph if node.op_type == "MatMulNBits" and "down_proj" in node.inputs[1].name)
    node.attributes["block_size"] = ir.AttrInt64("block_size", 64)


def turn_tables(graph: Any) -> None:
    table = graph.initializers["sin"]
    table.const_value = ir.Tensor(-table.const_value.numpy(), name="sin")


def change_norm(graph: Any) -> None:
    norm = graph.initializers["model.norm.weight"]
    norm.const_value = ir.Tensor(np.nextafter(norm.const_value.numpy(), np.float32(9)), name=norm.name)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (swap_codes, {f"model.layers.{layer}.self_attn.o_proj.weight" for layer in (0, 1)}),
        (change_block, {"model.layers.0.mlp.down_proj.weight"}),
        (turn_tables, {"sin"}),
        (change_norm, {"model.norm.weight"}),
    ],
)
def test_verify_finds_a_changed_graph(
    change: Callable[[Any], None],
    names: set[str],
    exported: Path,
    changed: Path,
    registry: Registry,
    packed: Packed,
) -> None:
    model = ir.load(exported / "model.onnx")
    change(model.graph)
    ir.save(model, changed / "model.onnx", external_data="model.onnx.data")
    found = make_onnx(registry, changed).verify(changed, packed("llama 1.88-bit g32 tied")).different
    assert set(found) == names


def test_verify_finds_another_tokenizer_and_another_checkpoint(
    changed: Path, registry: Registry, packed: Packed
) -> None:
    (changed / "tokenizer.json").write_text("{}")
    verify = make_onnx(registry, changed).verify
    assert verify(changed, packed("llama 1.88-bit g32 tied")).different == ("tokenizer.json",)
    assert len(verify(changed, packed("llama 1.58-bit g64 untied")).different) > 10


def test_damaged_folders_say_what_is_wrong(changed: Path, registry: Registry, packed: Packed) -> None:
    checkpoint, data = packed("llama 1.88-bit g32 tied"), changed / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(ExportError, match="is cut off or missing"):
        make_onnx(registry, changed).verify(changed, checkpoint)
    with pytest.raises(ExportError, match="cannot load it"):
        open_runtime(changed, registry=registry)
    (changed / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(ExportError, match=r"model.onnx: "):
        make_onnx(registry, changed).verify(changed, checkpoint)
    (changed / "edgerazor_onnx.json").write_text("{}")
    with pytest.raises(ExportError, match="is not as edgerazor writes it"):
        open_runtime(changed, registry=registry)


def test_an_earlier_export_is_replaced_whole(changed: Path, registry: Registry, packed: Packed) -> None:
    checkpoint = packed("qwen3 1.58-bit g256 tied")
    (changed / "chat_template.jinja").write_text("of the earlier one")
    make_onnx(registry, changed).export(checkpoint, changed)
    assert make_onnx(registry, changed).verify(changed, checkpoint).different == ()
    assert not (changed / "chat_template.jinja").exists()
    assert [file.name for file in changed.parent.iterdir()] == ["changed"]


def test_a_slow_kernel_is_named_with_its_cure(registry: Registry, packed: Packed) -> None:
    from edgerazor.plugins.exporters.onnx.kernels import measure_2bit, slow_kernel_note

    note = slow_kernel_note(40.0)
    assert note is not None and "40 times" in note and "ternary_storage=4bit" in note
    assert slow_kernel_note(1.2) is None
    ternary, int4 = (
        make_onnx(registry, Path("out")).planned(packed(case))
        for case in ("qwen3 1.58-bit g256 tied", "qwen3 4-bit g32 tied")
    )
    assert measure_2bit(ternary) > 0 and measure_2bit(int4) == 0


@pytest.mark.parametrize("missing", ["onnx_ir", "onnxscript"])
def test_without_the_extra_the_error_names_it(
    missing: str, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, missing, None)
    for name in [name for name in sys.modules if name.startswith("edgerazor.plugins.exporters.onnx")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(PluginError, match=r"pip install '\.\[onnx\]'"):
        make_onnx(registry, Path("out"))
