"""Every family in mlx_lm: logits and greedy tokens against Transformers' own classes, or the fact that it refuses."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlx_cases import make_mlx
from numpy.typing import NDArray

pytest.importorskip("mlx_lm")

from edgerazor.checkpoint import PackedCheckpoint, load_model, open_checkpoint, pack_model
from edgerazor.core.contracts import Runtime
from edgerazor.core.registry import Registry
from edgerazor.errors import ExportError
from edgerazor.inference.open_runtime import open_runtime
from edgerazor.schemas.recipe import load_recipe
from tests.families import LLAMA3_ROPE, family_model

pytestmark = [pytest.mark.mlx, pytest.mark.slow]

INT4 = [{"match": "*", "quantizer": {"name": "int", "bits": 4, "group_size": 32}}]
SQMP = [{"match": "*", "quantizer": {"name": "sqmp", "high_ratio": 0.125, "group_size": 32}}]
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
WINDOW = {"use_sliding_window": True, "sliding_window": 6}
KINDS = ["sliding_attention", "full_attention"]
PARTIAL = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.75}
# name in the table of the guide: (family of tests/families.py, changes of its configuration, rules)
EXPRESSED: dict[str, tuple[str, dict[str, Any], list[dict[str, Any]]]] = {
    "Llama 3.1": ("llama3", {}, SQMP),
    "Llama 3.2, tied": ("llama3-tied", {}, INT4),
    "Llama with biases": ("llama-biases", {}, INT4),
    "SmolLM2": ("smollm2", {}, INT4),
    "SmolLM3": ("smollm3", {}, INT4),
    "SmolLM3, a window on one layer": ("smollm3", {**WINDOW, "layer_types": KINDS}, INT4),
    "Mistral": ("mistral", {}, INT4),
    "Mistral, a window as long as the context": ("mistral-window", {"sliding_window": 64}, INT4),
    "Qwen2.5": ("qwen2", {}, INT4),
    "Qwen2.5, yarn": ("qwen2", {"rope_parameters": YARN}, INT4),
    "Qwen2.5, yarn with its own factor": ("qwen2", {"rope_parameters": {**YARN, "attention_factor": 1.4}}, INT4),
    "Qwen3": ("qwen3", {}, SQMP),
    "Qwen3, linear": ("qwen3", {"rope_parameters": LINEAR}, INT4),
    "Gemma 3": ("gemma3", {}, SQMP),
    "Gemma 3, untied": ("gemma3", {"tie_word_embeddings": False}, INT4),
    "Phi-4-mini, to the original positions": ("phi4-mini", {}, INT4),
    "Phi-4-mini, heads rotated in part": ("phi4-mini", {"rope_parameters": PARTIAL}, INT4),
    "OLMo 2": ("olmo2", {}, INT4),
    "Granite 3": ("granite3", {}, INT4),
    "Granite 3, llama3": ("granite3", {"rope_parameters": LLAMA3_ROPE, "attention_multiplier": 1.5}, INT4),
    "MobileLLM": ("mobilellm", {}, INT4),
}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "Mistral with a window": (
        "mistral-window",
        {},
        "windows 6, 6: mlx_lm's mistral takes windows of one size, and a layer at least that has none",
    ),
    "Qwen2 with a window": (
        "qwen2",
        {**WINDOW, "max_window_layers": 1},
        "window 6 on layer 1: mlx_lm's qwen2 attends to all positions in every layer",
    ),
    "Gemma 3, capped logits": (
        "gemma3",
        {"final_logit_softcapping": 2.0},
        "logit_softcap 2.0: mlx_lm's gemma3_text computes with none",
    ),
    "Gemma 3, windows of no period": (
        "gemma3",
        {"layer_types": ["full_attention", "sliding_attention", "sliding_attention"]},
        "windows all, 6, 6: mlx_lm's gemma3_text sees all positions in every n-th layer and one window elsewhere",
    ),
    "MobileLLM, shared layers": ("mobilellm-layer-sharing", {}, "repeats 2: mlx_lm's llama computes with 1"),
    "Qwen3 with heads in part": (
        "qwen3",
        {"rope_parameters": PARTIAL},
        "partial_rotary_factor 0.75: mlx_lm's qwen3 rotates whole heads",
    ),
    "Qwen3, dynamic": (
        "qwen3",
        {"rope_parameters": {**LINEAR, "rope_type": "dynamic"}},
        "rope_type 'dynamic': mlx_lm computes it otherwise; known: default, linear, llama3, yarn, longrope",
    ),
    "Qwen2 with wide heads": (
        "qwen2",
        {"head_dim": 32},
        "model.layers.0.self_attn.k_proj.bias: is [64], mlx_lm's qwen2 has [32]",
    ),
    "Qwen3 with biases": (
        "qwen3",
        {"attention_bias": True},
        "model.layers.0.self_attn.k_proj.bias: mlx_lm's qwen3 has no such tensor",
    ),
    "Qwen3 mixture": (
        "qwen3_moe",
        {},
        "config.json: model_type 'qwen3_moe': no class of mlx_lm is known for it; known",
    ),
    "Qwen2.5-Omni": ("omni", {}, "config.json: model_type 'qwen2_5_omni_thinker': no class of mlx_lm is known for it"),
}


@dataclass
class Family:
    """A checkpoint, its folder, and what was noted."""

    checkpoint: PackedCheckpoint
    path: Path
    notes: list[str]


def pack_family(name: str, changes: dict[str, Any], rules: list[dict[str, Any]], root: Path, registry: Registry) -> Any:
    family_model(name, **changes).to(torch.bfloat16).save_pretrained(root / "float")
    section = {"model": {"name_or_path": str(root / "float")}, "quantization": {"weights": rules}}
    pack_model(load_recipe(section, registry=registry), registry=registry, output=root / "packed")
    return open_checkpoint(root / "packed", registry=registry)


@pytest.fixture(scope="module")
def family(request: pytest.FixtureRequest, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Family:
    """One case, exported once."""
    root = tmp_path_factory.mktemp("family")
    checkpoint = pack_family(*EXPRESSED[request.param], root, registry)
    result = make_mlx(registry, root / "out").export(checkpoint, root / "out")
    return Family(checkpoint, root / "out", result.details["notes"])


every_family = pytest.mark.parametrize("family", EXPRESSED, indirect=True, scope="module")


def greedy(runtime: Runtime, ids: list[int], count: int) -> list[int]:
    written, pending = list[int](), ids
    for _ in range(count):
        written.append(int(runtime.feed(pending)[-1].argmax()))
        pending = written[-1:]
    return written


@every_family
def test_weights_logits_and_greedy_tokens_are_those_of_the_checkpoint(family: Family, registry: Registry) -> None:
    """The packed checkpoint with activations left alone, in float32; past every window, at once and token by token."""
    assert make_mlx(registry, family.path).verify(family.path, family.checkpoint).different == ()
    ids = torch.randint(3, 96, (28,), generator=torch.Generator().manual_seed(3)).tolist()
    model = load_model(family.checkpoint.folder, dtype=torch.float32, dequantize=True)
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([ids])).logits[0].numpy()
        chosen = model.generate(
            torch.tensor([ids[:8]]), max_new_tokens=20, do_sample=False, eos_token_id=-1, pad_token_id=0
        )
    runtime = open_runtime(family.path, registry=registry)
    whole = runtime.feed(ids, every=True)
    runtime.restart()
    steps = np.concatenate([runtime.feed(ids[:4], every=True), *(runtime.feed([token]) for token in ids[4:])])
    for found in (whole, steps):
        assert distance(found, expected) < 2e-5
    runtime.restart()
    assert greedy(runtime, ids[:8], 20) == chosen[0, 8:].tolist()
    runtime.close()


def distance(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float((np.linalg.norm(found - expected, axis=-1) / np.linalg.norm(expected, axis=-1)).max())


@pytest.mark.parametrize("family", ["Phi-4-mini, to the original positions"], indirect=True)
def test_a_context_that_longrope_limits_is_kept_and_noted(family: Family, registry: Registry) -> None:
    assert "up to 32 positions: in longer texts longrope turns every position otherwise" in family.notes
    runtime = open_runtime(family.path, registry=registry)
    assert family.checkpoint.facts.context == 64 and runtime.context_length == 32
    runtime.close()


def test_a_root_that_mlx_lm_rounds_is_noted(registry: Registry, tmp_path: Path) -> None:
    """Gemma 3 of 96 columns multiplies embeddings by 9.798, mlx_lm by 9.8125."""
    checkpoint = pack_family("gemma3", {"hidden_size": 96, "num_attention_heads": 6}, INT4, tmp_path, registry)
    result = make_mlx(registry, tmp_path / "out").export(checkpoint, tmp_path / "out")
    assert any("to bfloat16: 9.8125 for 9.79796" in note for note in result.details["notes"])
    ids = list(range(3, 20))
    model = load_model(checkpoint.folder, dtype=torch.float32, dequantize=True)
    runtime = open_runtime(tmp_path / "out", registry=registry)
    found, differences = runtime.feed(ids, every=True), []
    runtime.close()
    for scale in (96**0.5, 9.8125):
        model.model.embed_tokens.embed_scale.fill_(scale)
        with torch.no_grad():
            differences.append(distance(found, model(input_ids=torch.tensor([ids])).logits[0].numpy()))
    assert differences[1] < 2e-5 < differences[0] < 5e-3


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_class_of_mlx_lm_does_not_compute_is_refused(case: str, registry: Registry, tmp_path: Path) -> None:
    name, changes, expected = REFUSED[case]
    checkpoint = pack_family(name, changes, INT4, tmp_path, registry)
    with pytest.raises(ExportError) as caught:
        make_mlx(registry, tmp_path / "out").export(checkpoint, tmp_path / "out")
    assert str(caught.value).startswith(expected)
    assert not (tmp_path / "out").exists()


def test_the_guide_lists_what_is_tested_here() -> None:
    page = (Path(__file__).parents[3] / "docs/guide/engines.md").read_text(encoding="utf-8")
    table = page.partition("| model | in mlx_lm |")[2].partition("\n\n")[0]
    listed = [row.split(" | ")[0].removeprefix("| ") for row in table.splitlines()[2:]]
    assert listed == [*EXPRESSED, *REFUSED]
