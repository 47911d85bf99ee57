"""Folders for vLLM and Transformers: what is in them is what was trained, and Transformers loads it without us."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from compressed_tensors_cases import (
    CASES,
    EMBEDDING,
    IDS,
    ONE_LAYER,
    OneLayer,
    different_weights,
    export,
    load,
    section,
)
from gguf_cases import BODIES, pack_case, rules
from safetensors.torch import load_file

pytest.importorskip("compressed_tensors")

from edgerazor.checkpoint import load_model, open_checkpoint
from edgerazor.core.registry import Registry
from edgerazor.errors import ExportError, PluginError
from edgerazor.export.export import build_exporter, verify_export
from edgerazor.inference.open_runtime import open_runtime

pytestmark = pytest.mark.slow

# Finders of modules are asked in order.
WITHOUT_US = """
import json, sys
class Refusing:
    def find_spec(self, name, *_):
        assert name.split(".")[0] != "edgerazor", name
sys.meta_path.insert(0, Refusing())
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
with torch.no_grad():
    logits = model(input_ids=torch.tensor([json.loads(sys.argv[2])])).logits
torch.save({"logits": logits, "weights": model.state_dict(), "ids": tokenizer("a word")["input_ids"]}, sys.argv[3])
"""


@pytest.fixture(scope="module")
def checkpoints(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> OneLayer:
    return OneLayer(registry, tmp_path_factory)


@pytest.mark.parametrize("case", CASES)
def test_weights_in_transformers_are_codes_times_scales(case: str, checkpoints: OneLayer, tmp_path: Path) -> None:
    """In float32, where a product is exact; an embedding kept at 16 bit is rounded once."""
    checkpoint = checkpoints(case)
    result = export(checkpoint, tmp_path / "out")
    assert "Transformers" in result.details["engine"]
    assert not different_weights(checkpoint, load(tmp_path / "out").state_dict())


@pytest.mark.subprocess
@pytest.mark.slow
def test_transformers_loads_a_folder_without_us(checkpoints: OneLayer, tmp_path: Path) -> None:
    checkpoint = checkpoints("1.88-bit")
    export(checkpoint, tmp_path / "out")
    command = [sys.executable, "-c", WITHOUT_US, str(tmp_path / "out"), str(IDS), str(tmp_path / "found.pt")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    assert not different_weights(checkpoint, found["weights"]) and found["ids"]
    student = load_model(checkpoint.folder, dtype=torch.float32, dequantize=True)
    with torch.no_grad():
        student.lm_head.weight = torch.nn.Parameter(found["weights"]["lm_head.weight"])
        student.get_input_embeddings().weight = torch.nn.Parameter(found["weights"][EMBEDDING])
        expected = student(input_ids=torch.tensor([IDS])).logits
    assert torch.allclose(found["logits"], expected, rtol=1e-5, atol=1e-5)


def test_words_of_4_bits_are_ours_byte_for_byte(checkpoints: OneLayer, tmp_path: Path) -> None:
    checkpoint = checkpoints("4-bit")
    export(checkpoint, tmp_path / "out")
    stored = load_file(tmp_path / "out/model.safetensors")
    for module in checkpoint.section.modules:
        ours = checkpoint.packed_tensors(module)["weight_i4"]
        name = "lm_head" if module == "model.embed_tokens" else module
        assert torch.equal(stored[f"{name}.weight_packed"].view(torch.uint8), ours)


@pytest.mark.parametrize(
    ("case", "settings", "groups"),
    [
        ("1.58-bit", [], [(4, 128, 8)]),
        ("1.58-bit", ["profile=w2"], [(2, 128, 7), (4, 128, 1)]),
        ("1.88-bit", ["profile=w2"], [(4, None, 7), (4, 128, 1)]),
        ("one scale a row", ["profile=w2"], [(2, None, 8)]),
        ("8-bit", ["embedding=int4"], [(4, 64, 2), (8, 64, 7)]),
        ("4-bit", ["untie=false"], [(4, 32, 7)]),
    ],
)
def test_groups_and_widths_are_what_engines_are_told(
    case: str, settings: list[str], groups: list[Any], checkpoints: OneLayer, tmp_path: Path
) -> None:
    export(checkpoints(case), tmp_path / "out", *settings)
    stated = section(tmp_path / "out")["config_groups"].values()
    found = [(g["weights"]["num_bits"], g["weights"].get("group_size"), len(g["targets"])) for g in stated]
    assert sorted(found, key=str) == sorted(groups, key=str)
    assert (
        verify_export(tmp_path / "out", checkpoints(case).folder, registry=checkpoints(case).registry).different == ()
    )


def test_what_vllm_joins_has_one_scheme(registry: Registry, tmp_path: Path) -> None:
    """q is ternary in groups of 256, k and v are int4 in groups of 32; gate and up differ, too."""
    int4 = {"name": "int", "bits": 4, "group_size": 32}
    weights = [
        {"match": ["*.k_proj", "*.v_proj", "*.up_proj"], "quantizer": int4},
        {"match": "*", "quantizer": {"name": "ternary", "group_size": 256}},
    ]
    checkpoint = open_checkpoint(pack_case(tmp_path, registry, weights=weights, **ONE_LAYER), registry=registry)
    export(checkpoint, tmp_path / "out", "profile=w2")
    stated = section(tmp_path / "out")["config_groups"].values()
    joined = [target for group in stated for target in group["targets"] if group["weights"]["num_bits"] == 4]
    assert {target.rstrip("$").rpartition(".")[2] for target in joined} == {
        f"{n}_proj" for n in ("q", "k", "v", "gate", "up")
    }


def test_a_part_of_what_vllm_joins_is_noted(registry: Registry, tmp_path: Path) -> None:
    weights = [{"match": "*.q_proj", "quantizer": {"name": "ternary", "group_size": 64}}]
    checkpoint = open_checkpoint(pack_case(tmp_path, registry, weights=weights, **ONE_LAYER), registry=registry)
    notes = export(checkpoint, tmp_path / "out").details["notes"]
    assert any(note.startswith("vLLM refuses the folder: it joins qkv of layer 0") for note in notes)
    assert "model.layers.0.self_attn.k_proj" in section(tmp_path / "out")["ignore"]


def test_a_packed_embedding_is_exact_and_not_for_transformers(checkpoints: OneLayer, tmp_path: Path) -> None:
    checkpoint = checkpoints("4-bit")
    kept, packed = (export(checkpoint, tmp_path / name, f"embedding={name}") for name in ("keep", "int4"))
    assert packed.bytes < kept.bytes and packed.details["engine"] is None
    assert any("cannot load a packed embedding" in note for note in packed.details["notes"])
    with pytest.raises(PluginError, match="cannot load a packed embedding"):
        open_runtime(tmp_path / "int4", registry=checkpoint.registry)
    with pytest.raises(ExportError, match="embedding int4 needs untie"):
        export(checkpoint, tmp_path / "both", "embedding=int4", "untie=false")


def test_a_report_says_what_embedding_and_head_cost(checkpoints: OneLayer, tmp_path: Path) -> None:
    notes = export(checkpoints("4-bit"), tmp_path / "out").details["notes"]
    assert [note for note in notes if note.startswith("the embedding is kept at 16 bit, 0.164 MB; embedding=int4")]
    assert [note for note in notes if "packed, in 0.0461 MB" in note and "tie_word_embeddings: false" in note]


@pytest.mark.parametrize(
    ("case", "settings", "expected"),
    [
        ("rows of 100", [], {"sizes that are multiples of 32", "groups of 32, 64, 128 or a whole row"}),
        ("1.58-bit", ["profile=w2"], {"takes 4 bits"}),
        ("1.58-bit", [], {"7 ternary matrices are stored at 4 bits"}),
        ("4-bit", [], set()),
    ],
)
def test_what_kernels_of_vllm_lack_is_noted(
    case: str, settings: list[str], expected: set[str], checkpoints: OneLayer, tmp_path: Path
) -> None:
    notes = "\n".join(export(checkpoints(case), tmp_path / "out", *settings).details["notes"])
    possible = {"sizes that are multiples of 32", "groups of 32, 64, 128 or a whole row", "ternary matrices are stored"}
    assert all(text in notes for text in expected)
    assert expected or not any(text in notes for text in possible)


@pytest.mark.parametrize("group_size", [None, 32])
def test_activations_are_declared_where_a_token_has_one_scale(
    group_size: int | None, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pack_case(tmp_path, registry, weights=rules(BODIES["4"], 32), **ONE_LAYER)
    checkpoint = open_checkpoint(folder, registry=registry)
    int8 = {"name": "int", "bits": 8, "group_size": group_size}
    changed = {**checkpoint.recipe, "quantization": {**checkpoint.recipe["quantization"], "activations": int8}}
    monkeypatch.setattr(checkpoint, "recipe", changed)
    logits, declared = [], []
    for activations in ("recipe", "none"):
        path = tmp_path / activations
        build_exporter("compressed-tensors", path, [f"activations={activations}"], registry).export(checkpoint, path)
        declared += [group["input_activations"] for group in section(path)["config_groups"].values()]
        runtime = open_runtime(path, registry=registry)
        logits.append(torch.tensor(runtime.feed(IDS, every=True)))
        runtime.close()
    if group_size:
        assert declared == [None, None] and torch.equal(*logits)
    else:
        assert declared[0]["strategy"] == "token" and declared[1] is None
        # Transformers rounds the inputs, and no more.
        assert 0 < float((logits[0] - logits[1]).norm() / logits[1].norm()) < 0.1


def test_a_tensor_that_float16_does_not_hold_keeps_its_dtype(registry: Registry, tmp_path: Path) -> None:
    def small(model: Any) -> None:
        model.model.norm.weight.data[0] = 2.0**-30

    folder = pack_case(tmp_path, registry, weights=rules(BODIES["4"], 32), change=small, **ONE_LAYER)
    checkpoint = open_checkpoint(folder, registry=registry)
    result = export(checkpoint, tmp_path / "out")
    stored = load_file(tmp_path / "out/model.safetensors")
    assert stored["model.norm.weight"].dtype == torch.bfloat16 and stored["model.norm.weight"][0] == 2.0**-30
    assert any(
        note.startswith("model.norm.weight: float16 does not hold it exactly") for note in result.details["notes"]
    )


def test_weights_beyond_float16_are_named(registry: Registry, tmp_path: Path) -> None:
    def large(model: Any) -> None:
        model.model.layers[0].mlp.up_proj.weight.data[0, :4] = 2.0**17

    folder = pack_case(tmp_path, registry, weights=rules(BODIES["4"], 32), change=large, **ONE_LAYER)
    with pytest.raises(ExportError, match=r"^model\.layers\.0\.mlp\.up_proj: weights may be as large as 1\.31e\+05"):
        export(open_checkpoint(folder, registry=registry), tmp_path / "out")


def test_what_cannot_be_held_is_named(registry: Registry, tmp_path: Path) -> None:
    def large(model: Any) -> None:
        model.model.norm.weight.data[0] = 2.0**17

    folder = pack_case(tmp_path, registry, weights=rules(BODIES["4"], 32), change=large, **ONE_LAYER)
    checkpoint = open_checkpoint(folder, registry=registry)
    with pytest.raises(ExportError, match=r"^model\.norm\.weight: holds values beyond what float16 reaches"):
        export(checkpoint, tmp_path / "out")
    with pytest.raises(ExportError, match=r"(?s)^lm_head|model\.embed_tokens: bfloat16 does not hold all.*\n.*q_proj"):
        export(checkpoint, tmp_path / "out", "dtype=bfloat16")
    assert not (tmp_path / "out").exists()


def test_scales_that_bfloat16_holds_may_be_bfloat16(registry: Registry, tmp_path: Path) -> None:
    body = {**BODIES["4"], "scale_dtype": "float16_bfloat16"}
    weights = [{"match": "*", "quantizer": {**body, "group_size": 32}}]
    checkpoint = open_checkpoint(pack_case(tmp_path, registry, weights=weights, **ONE_LAYER), registry=registry)
    export(checkpoint, tmp_path / "out", "dtype=bfloat16")
    stored = load_file(tmp_path / "out/model.safetensors")
    assert {tensor.dtype for tensor in stored.values() if tensor.is_floating_point()} == {torch.bfloat16}
    assert verify_export(tmp_path / "out", checkpoint.folder, registry=registry).different == ()
