"""Exported folders: the weights of the checkpoint, the logits of torch, the same text with every kind of cache."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf_cases import BODIES, byte_level_tokenizer, pack_case, rules
from onnx_cases import EXPORTS, make_onnx
from transformers import AutoTokenizer

from edgerazor import quickstart
from edgerazor.checkpoint import load_model, open_checkpoint, pack_model
from edgerazor.core.registry import Registry
from edgerazor.errors import EdgeRazorError, ExportError
from edgerazor.inference.open_runtime import open_runtime
from edgerazor.schemas.recipe import load_recipe
from tests.commands import fail, succeed
from tests.limits import quota

pytestmark = pytest.mark.slow

onnxruntime = pytest.importorskip("onnxruntime")
ir = pytest.importorskip("onnx_ir")

TEACHER = Path(quickstart.__path__[0]) / "teacher"
Exported = Callable[..., tuple[Path, Path]]


@pytest.fixture(scope="module")
def exported(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """`exported(case, **settings)`: the folder and its checkpoint; each is made once."""
    made: dict[str, tuple[Path, Path]] = {}

    def make(case: str, **settings: Any) -> tuple[Path, Path]:
        key = f"{case} {sorted(settings.items())}"
        if key not in made:
            checkpoints = [folder for name, (_, folder) in made.items() if name.startswith(f"{case} [")]
            root = tmp_path_factory.mktemp("onnx")
            folder = checkpoints[0] if checkpoints else pack_case(root, registry, **EXPORTS[case])
            make_onnx(registry, root / "out", **settings).export(open_checkpoint(folder), root / "out")
            made[key] = root / "out", folder
        return made[key]

    return make


def tokens(count: int, seed: int = 1) -> list[int]:
    return torch.randint(0, 250, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def torch_logits(folder: Path, ids: list[int]) -> np.ndarray:
    model = load_model(folder, dtype=torch.float32, dequantize=True)
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0].double().numpy()  # type: ignore[no-any-return]


@pytest.mark.parametrize("case", EXPORTS)
def test_weights_are_equal_and_level_0_computes_as_torch(case: str, exported: Exported, registry: Registry) -> None:
    path, folder = exported(case, accuracy_level=0)
    report = make_onnx(registry, path).verify(path, open_checkpoint(folder))
    assert report.different == () and report.tensors == len(list(open_checkpoint(folder).names()))
    ids = tokens(40)
    expected, runtime = torch_logits(folder, ids), open_runtime(path, registry=registry)
    whole = runtime.feed(ids, every=True)
    runtime.restart()
    pieces = [
        runtime.feed(ids[:9], every=True),
        runtime.feed(ids[9:39], every=True),
        runtime.feed(ids[39:], every=True),
    ]
    for found in (whole, np.concatenate(pieces)):
        assert np.linalg.norm(found - expected) < 5e-6 * np.linalg.norm(expected)
    runtime.close()


@pytest.mark.parametrize("case", ["qwen3 1.88-bit g128 tied", "qwen3 1.58-bit g256 tied"])
def test_64_greedy_tokens_are_those_of_torch(case: str, exported: Exported, registry: Registry) -> None:
    path, folder = exported(case, accuracy_level=0)
    ids = tokens(8)
    model = load_model(folder, dtype=torch.float32, dequantize=True)
    written = model.generate(torch.tensor([ids]), max_new_tokens=64, do_sample=False, eos_token_id=-1, pad_token_id=0)
    runtime = open_runtime(path, registry=registry)
    assert _greedy(runtime, ids, 64) == written[0, 8:].tolist()
    runtime.close()


@pytest.mark.parametrize("bits", ["4", "1.88"])
def test_shared_growing_and_no_cache_write_the_same(bits: str, registry: Registry, tmp_path: Path) -> None:
    """With the quickstart's model: a random one is so often undecided that the last bit of a sum decides."""
    section = {"weights": rules(BODIES[bits], 256)}
    recipe = load_recipe({"model": {"name_or_path": str(TEACHER)}, "quantization": section}, registry=registry)
    pack_model(recipe, registry=registry, output=tmp_path / "packed")
    path = tmp_path / "out"
    make_onnx(registry, path).export(open_checkpoint(tmp_path / "packed"), path)
    ids = AutoTokenizer.from_pretrained(path)("def load(self, path):\n    ")["input_ids"]
    start = len(ids)
    runtime: Any = open_runtime(path, registry=registry)
    shared = _greedy(runtime, ids, 64)
    session = runtime._session
    grown, cache = list(ids), _empty(session)
    for _ in range(64):
        pending = grown if len(grown) == start else grown[-1:]
        logits, *cache = session.run(None, _feeds(session, pending, len(grown), cache))
        grown.append(int(logits[0, -1].argmax()))
    again = list(ids)
    for _ in range(64):
        logits = session.run(["logits"], _feeds(session, again, len(again), _empty(session)))[0]
        again.append(int(logits[0, -1].argmax()))
    assert grown[start:] == shared
    assert again[start:] == shared
    runtime.close()


def test_level_4_stays_close_to_the_trained_student(exported: Exported, registry: Registry) -> None:
    path, folder = exported("qwen3 1.58-bit g256 tied")
    ids = tokens(64)
    expected, runtime = torch_logits(folder, ids), open_runtime(path, registry=registry)
    assert np.linalg.norm(runtime.feed(ids, every=True) - expected) < 6e-2 * np.linalg.norm(expected)
    runtime.close()


def test_the_graph_is_small_and_holds_every_table_once(exported: Exported) -> None:
    path, folder = exported("qwen3 1.88-bit g128 tied")
    model = ir.load(path / "model.onnx")
    kinds = [node.op_type for node in model.graph]
    assert kinds.count("GroupQueryAttention") == 2
    # q, k, v fused and gate, up fused, wide and narrow rows each; o and down alone; one tied head.
    assert kinds.count("MatMulNBits") == 2 * (2 + 2 + 2 + 2) + 1
    assert kinds.count("GatherBlockQuantized") == 1
    tables = [value for value in model.graph.initializers.values() if value.shape and value.shape[0] == 320]
    assert len([table for table in tables if table.dtype == ir.DataType.UINT8]) == 1
    assert all(list(value.uses()) for value in model.graph.initializers.values())
    packed = open_checkpoint(folder)
    assert json.loads(model.metadata_props["edgerazor.tensors"]).keys() == set(packed.section.modules)


def test_storage_in_four_bits_and_logits_of_the_last_position(exported: Exported, registry: Registry) -> None:
    case = "qwen3 1.58-bit g256 tied"
    path, folder = exported(case, ternary_storage="4bit", logits="last", context_length=32, accuracy_level=0)
    assert make_onnx(registry, path).verify(path, open_checkpoint(folder)).different == ()
    runtime, ids = open_runtime(path, registry=registry), tokens(20)
    expected = torch_logits(folder, ids)[-1]
    assert np.linalg.norm(runtime.feed(ids)[0] - expected) < 5e-6 * np.linalg.norm(expected)
    with pytest.raises(ExportError, match="33 tokens do not fit a context of 32"):
        runtime.feed(tokens(13))
    runtime.restart()
    with pytest.raises(ExportError, match="export it with logits=all"):
        runtime.feed(ids, every=True)
    runtime.close()


def test_verify_finds_one_changed_code(exported: Exported, registry: Registry, tmp_path: Path) -> None:
    path, folder = exported("qwen3 1.58-bit g256 tied")
    shutil.copytree(path, tmp_path / "changed")
    model = ir.load(path / "model.onnx")
    places = json.loads(model.metadata_props["edgerazor.tensors"])["model.layers.1.mlp.down_proj"]
    tensor = model.graph.initializers[places[0]["codes"]].const_value
    data = bytearray((tmp_path / "changed" / "model.onnx.data").read_bytes())
    data[tensor.offset + 17] ^= 1
    (tmp_path / "changed" / "model.onnx.data").write_bytes(data)
    report = make_onnx(registry, path).verify(tmp_path / "changed", open_checkpoint(folder))
    assert report.different == ("model.layers.1.mlp.down_proj.weight",)
    assert "differs from" in fail("verify", tmp_path / "changed", "--against", folder)


def test_commands(registry: Registry, tmp_path: Path) -> None:
    folder = pack_case(tmp_path, registry, tokenizer=byte_level_tokenizer(), num_hidden_layers=1)
    out = tmp_path / "out"
    assert "verified" in succeed("export", folder, "--to", "onnx", "--output", out)
    assert "equal" in succeed("verify", out, "--against", folder)
    assert succeed("generate", out, "--prompt", "the fox", "--max-new-tokens", 4)
    (tmp_path / "held.txt").write_text("the fox and the dog in the house\n" * 30)
    options = ["--data", tmp_path / "held.txt", "--set", "data.sequence_length=64", "--teacher", tmp_path / "float"]
    rows = [
        dict(line.strip().split(": ") for line in succeed("evaluate", model, *options).splitlines())
        for model in (out, folder)
    ]
    assert rows[0]["tokens"] == rows[1]["tokens"]
    assert float(rows[0]["loss"]) == pytest.approx(float(rows[1]["loss"]), rel=0.01)


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "dynamic tables": (
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
        "rope_type 'dynamic' has no fixed table; known: default, linear, yarn, llama3, longrope",
    ),
    "a group of 8": ({"weights": rules(BODIES["4"], 8)}, "group_size 8 fits no MatMulNBits block"),
    "too long a context": ({"settings": {"context_length": 4096}}, "context_length 4096 exceeds the model's 128"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_leave_nothing(case: str, registry: Registry, tmp_path: Path) -> None:
    values, message = REFUSALS[case]
    settings = values.get("settings", {})
    folder = pack_case(tmp_path / "a", registry, **{key: value for key, value in values.items() if key != "settings"})
    exporter = make_onnx(registry, tmp_path / "b" / "out", **settings)
    with pytest.raises(EdgeRazorError, match=message.replace("(", r"\(")):
        exporter.export(open_checkpoint(folder), tmp_path / "b" / "out")
    assert not (tmp_path / "b").exists() or list((tmp_path / "b").iterdir()) == []


def test_a_folder_of_something_else_is_not_replaced(exported: Exported, registry: Registry, tmp_path: Path) -> None:
    _, folder = exported("qwen3 1.58-bit g256 tied")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportError, match="holds what is no exported model"):
        make_onnx(registry, tmp_path / "mine").export(open_checkpoint(folder), tmp_path / "mine")
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]
    with pytest.raises(ExportError, match=r"there is no model.onnx"):
        make_onnx(registry, tmp_path).verify(tmp_path / "mine", open_checkpoint(folder))


@pytest.mark.parametrize("size", [1000, 100_000])
def test_a_full_disk_leaves_the_old_folder(size: int, exported: Exported, registry: Registry, tmp_path: Path) -> None:
    """Once the companions do not fit, once the tensors do not."""
    path, folder = exported("qwen3 1.58-bit g256 tied")
    shutil.copytree(path, tmp_path / "out")
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    with quota(size), pytest.raises(ExportError, match="cannot be written: File too large"):
        make_onnx(registry, tmp_path / "out").export(open_checkpoint(folder), tmp_path / "out")
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


@pytest.mark.genai
def test_onnxruntime_genai_writes_the_same(exported: Exported, registry: Registry) -> None:
    genai = pytest.importorskip("onnxruntime_genai")
    path, _ = exported("qwen3 1.88-bit g128 tied")
    ids = tokens(8)
    runtime = open_runtime(path, registry=registry)
    expected = _greedy(runtime, ids, 32)
    runtime.close()
    model = genai.Model(str(path))
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=40, min_length=40, do_sample=False)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(np.array([ids], dtype=np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    assert [int(token) for token in generator.get_sequence(0)][8:] == expected


def _greedy(runtime: Any, ids: list[int], count: int) -> list[int]:
    runtime.restart()
    written, pending = list[int](), list(ids)
    for _ in range(count):
        pending = [int(runtime.feed(pending)[0].argmax())]
        written += pending
    return written


def _empty(session: Any) -> list[np.ndarray]:
    past = [value for value in session.get_inputs() if value.name.startswith("past_key_values.")]
    return [np.zeros((1, value.shape[1], 0, value.shape[3]), dtype=np.float32) for value in past]


def _feeds(session: Any, ids: list[int], total: int, cache: list[np.ndarray]) -> dict[str, np.ndarray]:
    names = [value.name for value in session.get_inputs() if value.name.startswith("past_key_values.")]
    return {
        "input_ids": np.array([ids], dtype=np.int64),
        "attention_mask": np.ones((1, total), dtype=np.int64),
        **dict(zip(names, cache, strict=True)),
    }
