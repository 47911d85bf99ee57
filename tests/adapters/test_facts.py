"""Facts of the families, from configurations of transformers 5 and before."""

from typing import Any

import pytest

from edgerazor.adapters.config_facts import decoder_facts
from edgerazor.core.contracts import ModelFacts, Rope
from edgerazor.core.registry import Registry
from edgerazor.errors import CheckpointError
from tests.families import FAMILIES, SMALL, family_config

PLAIN = {**SMALL, "rms_norm_eps": 1e-6, "rope_theta": 1e4}


def family_facts(registry: Registry, name: str, *, as_file: bool) -> ModelFacts:
    config = family_config(name)
    facts: ModelFacts = registry.adapter_for(FAMILIES[name][0]).facts(config.to_dict() if as_file else config)
    return facts


@pytest.mark.parametrize("name", FAMILIES)
def test_a_configuration_and_its_file_state_the_same(name: str, registry: Registry) -> None:
    facts = family_facts(registry, name, as_file=False)
    assert facts == family_facts(registry, name, as_file=True)
    assert len(facts.ropes) == len(facts.windows) == facts.layers


def test_what_families_add(registry: Registry) -> None:
    facts = {name: family_facts(registry, name, as_file=True) for name in FAMILIES}
    assert facts["qwen3"].qk_norm == "per_head" and facts["llama-biases"].qk_norm == "none"
    assert facts["qwen2"].biases == facts["omni"].biases == {"q", "k", "v"} and facts["mistral"].biases == set()
    assert facts["llama-biases"].biases == {"q", "k", "v", "o"}
    assert facts["qwen3_moe"].experts == 4 and "expert_gate_up" in facts["qwen3_moe"].fused
    assert facts["mobilellm-layer-sharing"].repeats == 2 and facts["mobilellm"].repeats == 1
    assert facts["mobilellm"].tied and facts["mobilellm"].genai == "llama"
    assert facts["omni"].towers and facts["omni"].rope and sum(facts["omni"].rope.sections) == 8


@pytest.mark.parametrize("rope", [{"rope_theta": 2e4}, {"rope_theta": None, "rope_parameters": {"rope_theta": 2e4}}])
def test_theta_old_and_new(rope: dict[str, Any]) -> None:
    assert decoder_facts({**PLAIN, **rope}).rope == Rope(2e4)


def test_scaling_with_all_its_parameters() -> None:
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 32}
    old = decoder_facts({**PLAIN, "rope_scaling": {"type": "llama3", **scaling}})
    new = decoder_facts({**PLAIN, "rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, **scaling}})
    assert old.rope == new.rope == Rope(1e4, "llama3", scaling)


def test_layers_that_differ() -> None:
    """Local and global bases and windows, as Gemma 3 has them; layers without rotation, as SmolLM3 has them."""
    config = {
        **PLAIN,
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 8,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
        },
    }
    facts = decoder_facts(config)
    assert facts.windows == (8, None) and facts.ropes == (Rope(1e4), Rope(1e6, "linear", {"factor": 8.0}))
    assert facts.rope is None
    assert decoder_facts({**PLAIN, "no_rope_layers": [1, 0]}).ropes == (Rope(1e4), None)
    assert decoder_facts({**PLAIN, "partial_rotary_factor": 0.75}).rope == Rope(1e4, partial=0.75)


@pytest.mark.parametrize(
    ("values", "windows"),
    [
        ({"sliding_window": 16}, (16, 16)),
        ({"sliding_window": 16, "use_sliding_window": False}, (None, None)),
        ({"sliding_window": None, "use_sliding_window": True}, (None, None)),
        ({"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 1}, (None, 16)),
    ],
)
def test_windows(values: dict[str, Any], windows: tuple[int | None, ...]) -> None:
    assert decoder_facts({**PLAIN, **values}).windows == windows


def test_a_head_is_hidden_size_over_heads_if_unsaid() -> None:
    config = {**PLAIN, "num_key_value_heads": None, "num_attention_heads": 8, "head_dim": None}
    facts = decoder_facts(config)
    assert facts.head_dim == 8 and facts.kv_heads == 8


def test_what_is_missing_is_listed() -> None:
    absent = ("hidden_size", "rms_norm_eps", "rope_theta")
    config = {key: value for key, value in PLAIN.items() if key not in absent}
    with pytest.raises(CheckpointError) as caught:
        decoder_facts(config)
    assert str(caught.value).splitlines() == [f"config.json: {key} is missing" for key in absent]
    with pytest.raises(CheckpointError, match="holds a value that is no number"):
        decoder_facts({**PLAIN, "vocab_size": "many"})


def test_shapes_follow_from_sizes() -> None:
    facts = decoder_facts(PLAIN)
    assert facts.shape("q") == (64, 64) and facts.shape("k") == (32, 64) and facts.shape("o") == (64, 64)
    assert facts.shape("down") == (64, 96) and facts.shape("embedding") == (96, 64) and facts.shape("other") is None
