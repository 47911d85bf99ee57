"""Facts from config.json files as they are published, keys of older versions of transformers among them."""

from typing import Any

import pytest

from edgerazor.core.contracts import ModelFacts, Rope
from edgerazor.core.registry import Registry

LLAMA_3_2 = {
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": True,
}
SMOLLM3 = {
    **{key: value for key, value in LLAMA_3_2.items() if key not in ("rope_scaling", "head_dim")},
    "model_type": "smollm3",
    "num_hidden_layers": 8,
    "no_rope_layer_interval": 4,
    "rope_scaling": None,
    "use_sliding_window": False,
    "sliding_window": None,
}
GEMMA_3 = {
    "model_type": "gemma3_text",
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 1152,
    "intermediate_size": 6912,
    "max_position_embeddings": 32768,
    "num_attention_heads": 4,
    "num_hidden_layers": 26,
    "num_key_value_heads": 1,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "vocab_size": 262144,
}
PHI_4_MINI = {
    "model_type": "phi3",
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 32,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "vocab_size": 200064,
    "max_position_embeddings": 131072,
    "original_max_position_embeddings": 4096,
    "partial_rotary_factor": 0.75,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48},
    "rope_theta": 10000.0,
    "sliding_window": 262144,
    "tie_word_embeddings": True,
}
GRANITE_3 = {
    **{key: value for key, value in LLAMA_3_2.items() if key != "rope_scaling"},
    "model_type": "granite",
    "embedding_multiplier": 12.0,
    "attention_multiplier": 0.015625,
    "residual_multiplier": 0.22,
    "logits_scaling": 8.0,
}
MISTRAL = {**{key: value for key, value in LLAMA_3_2.items() if key != "rope_scaling"}, "model_type": "mistral"}


def facts(registry: Registry, config: dict[str, Any]) -> ModelFacts:
    found: ModelFacts = registry.adapter_for(config["model_type"]).facts(config)
    return found


def test_llama_3_2(registry: Registry) -> None:
    scaling = {key: value for key, value in LLAMA_3_2["rope_scaling"].items() if key != "rope_type"}  # type: ignore[attr-defined]
    found = facts(registry, LLAMA_3_2)
    assert found.rope == Rope(5e5, "llama3", scaling) and found.tied and found.activation == "silu"


def test_smollm3_leaves_every_fourth_layer_without_rotation(registry: Registry) -> None:
    found = facts(registry, SMOLLM3)
    assert [rope is None for rope in found.ropes] == [False, False, False, True] * 2
    assert found.head_dim == 64 and set(found.windows) == {None}


def test_gemma_3_has_a_full_layer_after_five_with_windows(registry: Registry) -> None:
    """Its config.json says neither `layer_types` nor `tie_word_embeddings`."""
    found = facts(registry, GEMMA_3)
    assert found.windows == ((512,) * 5 + (None,)) * 4 + (512, 512)
    assert found.ropes == ((Rope(1e4),) * 5 + (Rope(1e6),)) * 4 + (Rope(1e4), Rope(1e4))
    assert found.tied and found.norms == "sandwich" and found.norm_offset == 1 and found.qk_norm == "per_head"
    assert found.embedding_scale == 1152**0.5 and found.attention_scale == 1 / 16
    assert found.activation == "gelu_pytorch_tanh" and found.head_dim == 256
    scaled = facts(registry, {**GEMMA_3, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}})
    assert scaled.ropes[0] == Rope(1e4) and scaled.ropes[5] == Rope(1e6, "linear", {"factor": 8.0})


def test_phi_4_mini_names_the_rows_of_fused_matrices(registry: Registry) -> None:
    found = facts(registry, PHI_4_MINI)
    assert found.rope is not None and (found.rope.kind, found.rope.partial) == ("longrope", 0.75)
    assert found.rope.scaling["original_max_position_embeddings"] == 4096
    assert len(found.rope.scaling["long_factor"]) == 48
    assert found.fused["qkv"] == (("q", 3072), ("k", 1024), ("v", 1024)) and found.shape("qkv") == (5120, 3072)
    assert found.fused["gate_up"] == (("gate", 8192), ("up", 8192)) and found.shape("gate_up") == (16384, 3072)


def test_granite_3_multiplies(registry: Registry) -> None:
    found = facts(registry, GRANITE_3)
    assert (found.embedding_scale, found.attention_scale) == (12.0, 0.015625)
    assert (found.residual_scale, found.logit_scale) == (0.22, 1 / 8)


@pytest.mark.parametrize(("window", "expected"), [(None, None), (4096, 4096)])
def test_a_window_of_mistral(registry: Registry, window: int | None, expected: int | None) -> None:
    assert facts(registry, {**MISTRAL, "sliding_window": window}).windows == (expected,) * 16


def test_what_a_file_leaves_out_is_what_transformers_takes_for_it(registry: Registry) -> None:
    """Mistral without a word on windows has one, of 4096 positions."""
    assert set(facts(registry, MISTRAL).windows) == {4096}
