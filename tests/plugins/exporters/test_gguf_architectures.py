"""Names and keys of a GGUF, from roles and facts alone."""

from dataclasses import replace
from typing import Any

import pytest
from gguf_cases import QWEN3

pytest.importorskip("gguf")

from edgerazor.core.contracts import GGUFArchitecture, ModelFacts, Rope, TensorRole
from edgerazor.core.registry import Registry
from edgerazor.errors import ExportError
from edgerazor.plugins.exporters.gguf.architectures import (
    architecture_of,
    describe_model,
    needed_names,
    tensor_name,
)

ROPE = {"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}
TYPES = ("qwen3", "qwen2", "llama", "mistral", "mobilellm", "qwen2_5_omni_thinker")
Stated = tuple[ModelFacts, GGUFArchitecture]


@pytest.fixture
def stated(registry: Registry) -> Any:
    """`stated(model type, **values)`: facts of a small model, and llama.cpp's name for it."""

    def state(model_type: str, **values: Any) -> Stated:
        text = {**QWEN3, **ROPE, "model_type": model_type, **values}
        config = {"model_type": model_type, "text_config": text} if model_type == "qwen2_5_omni_thinker" else text
        facts = registry.adapter_for(model_type).facts(config)
        return facts, architecture_of(facts)

    return state


@pytest.mark.parametrize("model_type", TYPES)
def test_every_part_has_a_name_of_its_own(model_type: str, stated: Any) -> None:
    facts, architecture = stated(model_type, num_hidden_layers=3)
    names = needed_names(facts, architecture)
    assert len(set(names)) == len(names) == 3 * len(facts.layer_roles()) + 2
    assert tensor_name(TensorRole("head"), architecture) == "output.weight"
    assert tensor_name(TensorRole("other", 1), architecture) is None
    assert tensor_name(TensorRole("q"), architecture) is None
    assert tensor_name(TensorRole("embedding", 1), architecture) is None
    assert tensor_name(TensorRole("embedding", bias=True), architecture) is None


def test_biases_and_norms_by_family(stated: Any) -> None:
    qwen3, llama, omni = (stated(model_type)[1] for model_type in ("qwen3", "llama", "qwen2_5_omni_thinker"))
    assert tensor_name(TensorRole("q_norm", 3), qwen3) == "blk.3.attn_q_norm.weight"
    assert tensor_name(TensorRole("q_norm", 3), llama) is None
    assert tensor_name(TensorRole("v", 3, bias=True), omni) == "blk.3.attn_v.bias"
    assert tensor_name(TensorRole("o", 3, bias=True), omni) is None
    assert tensor_name(TensorRole("o", 3, bias=True), llama) == "blk.3.attn_output.bias"


@pytest.mark.parametrize(("name", "norm"), [("olmo2", None), ("gemma3", "ffn_norm"), ("llama", "ffn_norm")])
def test_norms_before_and_behind_the_mlp(name: str, norm: str | None) -> None:
    """Each architecture has those of its family, by the tables of the package gguf."""
    architecture = GGUFArchitecture(name)
    assert tensor_name(TensorRole("mlp_norm", 0), architecture) == (norm and f"blk.0.{norm}.weight")
    behind = tensor_name(TensorRole("mlp_output_norm", 0), architecture)
    assert behind == (None if name == "llama" else "blk.0.post_ffw_norm.weight")


def test_the_text_model_of_the_omni_family(stated: Any) -> None:
    """Its configuration lies one level down, and positions have sections."""
    rope = {"rope_theta": 1e6, "rope_type": "default", "mrope_section": [16, 24, 24]}
    facts, omni = stated("qwen2_5_omni_thinker", rope_parameters=rope)
    keys, _, problems = describe_model(facts, omni, facts.context)
    assert problems == [] and keys["qwen2vl.rope.dimension_sections"] == [16, 24, 24, 0]
    assert keys["qwen2vl.block_count"] == 2 and keys["qwen2vl.rope.freq_base"] == 1e6
    assert "qwen2vl.rope.dimension_count" not in keys and not omni.permuted


def test_an_architecture_that_nobody_knows(stated: Any) -> None:
    facts, _ = stated("llama")
    with pytest.raises(ExportError, match="name no GGUF architecture"):
        architecture_of(replace(facts, gguf=None))
    with pytest.raises(ExportError, match=r"no architecture 'qwen33'; did you mean 'qwen3"):
        architecture_of(replace(facts, gguf=GGUFArchitecture("qwen33")))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an unrotated layer": (
        {"ropes": (Rope(1e4), None)},
        "without rotary embedding: layer 1; llama.cpp expects no layer",
    ),
    "two bases": (
        {"ropes": (Rope(1e4), Rope(1e6))},
        "layers with rotary embeddings of their own are not supported",
    ),
    "half a head": (
        {"ropes": (Rope(1e4, partial=0.5),) * 2},
        "partial_rotary_factor 0.5 is not supported; every column of a head must be rotated",
    ),
    "windows": (
        {"windows": (64, 64)},
        "window 64 on layers 0, 1: llama.cpp has none for this architecture; set context_length to 64",
    ),
    "a scaled embedding": ({"embedding_scale": 12.0}, "embedding_scale 12.0 is not supported"),
    "experts": ({"experts": 4}, "mixtures of experts are not supported; every layer has 4"),
    "a softcap": ({"logit_softcap": 30.0}, "logit_softcap 30.0 is not supported"),
    "an activation": ({"activation": "gelu_tanh"}, "activation gelu_tanh is not supported; expected silu"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_models_are_refused_by_fact(case: str, stated: Any) -> None:
    values, expected = REFUSED[case]
    facts, architecture = stated("llama")
    assert describe_model(replace(facts, **values), architecture, facts.context) == ({}, {}, [expected])


def test_a_window_of_the_whole_context_is_none(stated: Any) -> None:
    facts, architecture = stated("mistral", sliding_window=128)
    assert facts.windows == (128, 128) and describe_model(facts, architecture, facts.context)[2] == []
