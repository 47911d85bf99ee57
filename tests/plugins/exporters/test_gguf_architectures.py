"""Names and keys of the families, from roles and configurations alone."""

from typing import Any

import pytest
from gguf_cases import QWEN3

from edgerazor.core.contracts import TensorRole
from edgerazor.plugins.exporters.gguf.architectures import (
    ARCHITECTURES,
    describe_model,
    layer_parts,
    tensor_name,
    text_config,
)

ROPE = {"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_every_part_has_a_name_of_its_own(family: str) -> None:
    architecture = ARCHITECTURES[family]
    names = {
        tensor_name(TensorRole(kind, layer), architecture) for kind in layer_parts(architecture) for layer in (0, 9)
    }
    names |= {tensor_name(TensorRole(kind), architecture) for kind in ("embedding", "final_norm", "head")}
    assert None not in names and len(names) == 2 * len(layer_parts(architecture)) + 3
    assert tensor_name(TensorRole("other", 1), architecture) is None
    assert tensor_name(TensorRole("q"), architecture) is None
    assert tensor_name(TensorRole("embedding", bias=True), architecture) is None


def test_biases_and_norms_by_family() -> None:
    qwen3, llama, omni = (ARCHITECTURES[name] for name in ("qwen3", "llama", "qwen2_5_omni_thinker"))
    assert tensor_name(TensorRole("q_norm", 3), qwen3) == "blk.3.attn_q_norm.weight"
    assert tensor_name(TensorRole("q_norm", 3), llama) is None
    assert tensor_name(TensorRole("v", 3, bias=True), omni) == "blk.3.attn_v.bias"
    assert tensor_name(TensorRole("o", 3, bias=True), omni) is None
    assert tensor_name(TensorRole("o", 3, bias=True), llama) == "blk.3.attn_output.bias"


def test_the_text_model_of_the_omni_family() -> None:
    """Its configuration lies one level down, and positions have sections."""
    omni = ARCHITECTURES["qwen2_5_omni_thinker"]
    text = {**QWEN3, "rope_parameters": {"rope_theta": 1e6, "rope_type": "default", "mrope_section": [16, 24, 24]}}
    config = {"model_type": "qwen2_5_omni_thinker", "text_config": text}
    keys, problems = describe_model(text_config(config, omni), omni)
    assert problems == [] and keys["qwen2vl.rope.dimension_sections"] == [16, 24, 24, 0]
    assert keys["qwen2vl.block_count"] == 2 and keys["qwen2vl.rope.freq_base"] == 1e6
    assert "qwen2vl.rope.dimension_count" not in keys and not omni.permuted


@pytest.mark.parametrize("rope", [{"rope_theta": 2e4}, {"rope_parameters": {"rope_theta": 2e4}}])
def test_theta_old_and_new(rope: dict[str, Any]) -> None:
    assert describe_model({**QWEN3, **rope}, ARCHITECTURES["llama"])[0]["llama.rope.freq_base"] == 2e4


def test_what_is_missing_is_listed() -> None:
    config = {key: value for key, value in QWEN3.items() if key not in ("hidden_size", "rms_norm_eps")}
    _, problems = describe_model(config, ARCHITECTURES["qwen3"])
    assert problems == [f"config.json: {key} is missing" for key in ("hidden_size", "rms_norm_eps", "rope_theta")]


def test_a_head_is_hidden_size_over_heads_if_unsaid() -> None:
    config = {**QWEN3, **ROPE, "num_key_value_heads": None, "num_attention_heads": 8, "head_dim": None}
    keys, _ = describe_model(config, ARCHITECTURES["llama"])
    assert keys["llama.attention.key_length"] == 32 and keys["llama.attention.head_count_kv"] == 8
