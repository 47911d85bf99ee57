"""Every family in llama.cpp: logits of its GGUF against transformers' own classes, or the fact that it refuses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf_cases import byte_level_tokenizer, make
from test_gguf_llamacpp import opened

from edgerazor.checkpoint import PackedCheckpoint, load_model, open_checkpoint, pack_model
from edgerazor.core.contracts import GGUFArchitecture
from edgerazor.core.registry import Registry
from edgerazor.errors import ExportError
from edgerazor.plugins.exporters.gguf.read import open_gguf
from edgerazor.schemas.recipe import load_recipe
from tests.families import LLAMA3_ROPE, family_model

pytest.importorskip("llama_cpp")
pytestmark = pytest.mark.llamacpp
ROWS = 320
IDS = torch.randint(0, 256, (48,), generator=torch.Generator().manual_seed(1)).tolist()
# Quantized inputs of products are what llama.cpp rounds differently: one matrix alone shows every other difference.
RULES = {
    "one matrix": [{"match": "*.layers.0.mlp*down_proj", "quantizer": {"name": "int", "bits": 4, "group_size": 32}}],
    "every matrix": [{"match": "*", "quantizer": {"name": "int", "bits": 4, "group_size": 32}}],
}
LARGEST_ERROR = {"one matrix": 2e-2, "every matrix": 8e-2}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
FOUR_LAYERS = {"num_hidden_layers": 4, "no_rope_layers": [1, 1, 1, 0]}
GEMMA_PERIOD = {
    "num_hidden_layers": 6,
    "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e2},
        "full_attention": {"rope_type": "default", "rope_theta": 1e6},
    },
}
# llama.cpp's cache has at least 256 positions, and its size says which factors act.
SHORT = {"max_position_embeddings": 256, "original_max_position_embeddings": 256}
# name in the table of the guide: (family of tests/families.py, changes of its configuration)
EXPRESSED: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama 3.1": ("llama3", {}),
    "Llama 3.2, tied": ("llama3-tied", {}),
    "SmolLM2": ("smollm2", {}),
    "SmolLM3": ("smollm3", FOUR_LAYERS),
    "SmolLM3, yarn": ("smollm3", {**FOUR_LAYERS, "rope_parameters": YARN}),
    "Mistral": ("mistral", {}),
    "Qwen2": ("qwen2", {}),
    "Qwen2, yarn": ("qwen2", {"rope_parameters": YARN}),
    "Qwen2, yarn with its own factor": ("qwen2", {"rope_parameters": {**YARN, "attention_factor": 1.4}}),
    "Qwen3": ("qwen3", {}),
    "Qwen3, linear": ("qwen3", {"rope_parameters": LINEAR}),
    "Gemma 3": ("gemma3", {}),
    "Gemma 3, five of six layers local": ("gemma3", GEMMA_PERIOD),
    "Phi-4-mini": ("phi4-mini", SHORT),
    "Phi-4-mini, long contexts": ("phi4-mini", {}),
    "Gemma 3, capped logits": ("gemma3", {"final_logit_softcapping": 2.0}),
    "OLMo 2": ("olmo2", {}),
    "Granite 3": ("granite3", {"attention_multiplier": 1.5}),
    "Granite 3, llama3": ("granite3", {"rope_parameters": LLAMA3_ROPE}),
    "MobileLLM": ("mobilellm", {}),
}
CASES = [(name, "one matrix") for name in EXPRESSED]
CASES += [(name, "every matrix") for name in ("SmolLM2", "Gemma 3", "Phi-4-mini", "OLMo 2", "Granite 3", "Llama 3.1")]
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "Mistral with a window": (
        "mistral-window",
        {},
        "window 6 on layers 0, 1: llama.cpp has none for this architecture; set context_length to 6",
    ),
    "SmolLM3, other layers unrotated": (
        "smollm3",
        {},
        "without rotary embedding: layer 1; llama.cpp expects no layer",
    ),
    "Gemma 3, capped scores": (
        "gemma3",
        {"attn_logit_softcapping": 50.0},
        "attention_softcap 50.0 is not supported",
    ),
    "Granite 3, heads rotated in part": (
        "granite3",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
        "partial_rotary_factor 0.5 is not supported; every column of a head must be rotated",
    ),
    "OLMo 2, tied": ("olmo2", {"tie_word_embeddings": True}, "llama.cpp's olmo2 needs an output head of its own"),
    "Qwen2, llama3": (
        "qwen2",
        {"rope_parameters": LLAMA3_ROPE},
        "rope_type 'llama3' is not supported; expected default or linear or yarn",
    ),
    "Qwen2, narrow heads": ("qwen2", {"head_dim": 8}, "4 heads of 8 are 32 rows; llama.cpp expects 64"),
    "Qwen3 MoE": ("qwen3_moe", {}, "mixtures of experts are not supported; every layer has 4"),
}


def test_the_guide_lists_what_is_tested_here() -> None:
    page = (Path(__file__).parents[3] / "docs/guide/llamacpp.md").read_text(encoding="utf-8")
    rows = [
        line.split(" | ") for line in page.partition("| model | in llama.cpp |")[2].partition("\n\n")[0].splitlines()
    ]
    told = {row[0].removeprefix("| "): row[1].startswith("refused") for row in rows if len(row) > 1}
    assert told == {**dict.fromkeys(EXPRESSED, False), **dict.fromkeys(REFUSED, True)}


def packed_family(
    name: str, changes: dict[str, Any], registry: Registry, folder: Path, rules: str = "one matrix"
) -> PackedCheckpoint:
    """A small random model of the family, packed."""
    model = family_model(name, **{"vocab_size": ROWS, "initializer_range": 0.08, **changes})
    model.save_pretrained(folder / "float")
    byte_level_tokenizer().save_pretrained(folder / "float")
    section = {"model": {"name_or_path": str(folder / "float")}, "quantization": {"weights": RULES[rules]}}
    recipe = load_recipe(section, registry=registry)
    pack_model(recipe, registry=registry, output=folder / "packed")
    return open_checkpoint(folder / "packed", registry=registry)


def logits(path: Path, context: int) -> torch.Tensor:
    """Of llama.cpp, for every token."""
    with opened(path, logits_all=True, n_ctx=context) as model:
        model.eval(IDS)
        return torch.from_numpy(np.array(model.scores[: len(IDS)])).double()


@pytest.mark.parametrize(("name", "rules"), CASES)
def test_logits_are_those_of_transformers(name: str, rules: str, registry: Registry, tmp_path: Path) -> None:
    family, changes = EXPRESSED[name]
    checkpoint, path = packed_family(family, changes, registry, tmp_path, rules), tmp_path / "a.gguf"
    exporter = make(registry, path)
    result = exporter.export(checkpoint, path)
    assert any("rotary factors" in note for note in result.details["notes"]) is (family == "phi4-mini")
    assert exporter.verify(path, checkpoint).different == ()
    with torch.no_grad():
        ours = load_model(checkpoint.folder, dtype=torch.float32)(input_ids=torch.tensor([IDS])).logits[0].double()
    theirs = logits(path, 256 if changes is SHORT else 128)
    error = (theirs - ours).norm(dim=-1) / ours.norm(dim=-1)
    assert float(error.max()) < LARGEST_ERROR[rules]


def test_fused_matrices_are_split_where_the_architecture_has_none(registry: Registry, tmp_path: Path) -> None:
    """Phi-3 whose heads rotate whole is a Llama with fused matrices."""
    plain = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0}}
    checkpoint, path = packed_family("phi4-mini", plain, registry, tmp_path, "every matrix"), tmp_path / "a.gguf"
    make(registry, path).export(checkpoint, path)
    whole = logits(path, 128)
    facts = replace(checkpoint.facts, gguf=GGUFArchitecture("llama", permuted=True))
    checkpoint.__dict__["facts"] = facts
    exporter = make(registry, path)
    exporter.export(checkpoint, path)
    assert exporter.verify(path, checkpoint).different == ()
    assert {"blk.0.attn_q.weight", "blk.0.ffn_gate.weight"} < set(open_gguf(path).tensors)
    torch.testing.assert_close(logits(path, 128), whole, rtol=0, atol=1e-3)


def test_a_shorter_context_avoids_windows(registry: Registry, tmp_path: Path) -> None:
    checkpoint, path = packed_family("mistral-window", {}, registry, tmp_path), tmp_path / "a.gguf"
    make(registry, path, context_length=6).export(checkpoint, path)
    assert open_gguf(path).metadata["llama.context_length"] == 6
    with pytest.raises(ExportError, match="context_length 65: the model has 64 positions"):
        make(registry, path, context_length=65).export(checkpoint, path)


@pytest.mark.parametrize("name", REFUSED)
def test_what_llama_cpp_does_not_compute_is_refused_by_fact(name: str, registry: Registry, tmp_path: Path) -> None:
    family, changes, expected = REFUSED[name]
    checkpoint = packed_family(family, changes, registry, tmp_path)
    with pytest.raises(ExportError) as caught:
        make(registry, tmp_path / "a.gguf").export(checkpoint, tmp_path / "a.gguf")
    assert expected in str(caught.value).splitlines()
