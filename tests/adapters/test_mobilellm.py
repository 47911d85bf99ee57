"""The original `mobilellm` model type: what its configuration says is what the model does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from edgerazor.core.discovery import load_plugins
from edgerazor.core.plan import Plan
from edgerazor.errors import PlanError

load_plugins(external=False).register_models()
IDS = torch.randint(0, 96, (2, 9), generator=torch.Generator().manual_seed(0))
SHAPE = {
    "vocab_size": 96,
    "hidden_size": 96,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}


def build(**values: Any) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model("mobilellm", **SHAPE, **values)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def test_the_original_configuration_file_is_read(tmp_path: Path) -> None:
    """Its `auto_map` names remote code, which is neither fetched nor asked for."""
    original = {
        "model_type": "mobilellm",
        "auto_map": {"AutoConfig": "configuration_mobilellm.MobileLLMConfig"},
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "share_embedding": True,
        "layer_sharing": False,
        **SHAPE,
    }
    (tmp_path / "config.json").write_text(json.dumps(original))
    config = AutoConfig.from_pretrained(tmp_path)
    assert type(config).__module__ == "edgerazor.adapters.mobilellm_model"
    assert config.tie_word_embeddings and config.rope_parameters["rope_theta"] == 10000.0


def test_a_shared_embedding_is_the_head() -> None:
    shared, apart = build(share_embedding=True), build(share_embedding=False)
    assert shared.lm_head.weight is shared.model.embed_tokens.weight
    assert apart.lm_head.weight is not apart.model.embed_tokens.weight


def test_without_layer_sharing_it_is_llama() -> None:
    model = build()
    llama = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SHAPE), dtype=torch.float32).eval()
    llama.load_state_dict(model.state_dict())
    assert torch.equal(model(input_ids=IDS).logits, llama(input_ids=IDS).logits)


def test_shared_layers_run_twice_in_a_row() -> None:
    """As a Llama of twice the depth whose neighbouring layers are copies of one."""
    model = build(layer_sharing=True, share_embedding=True)
    deep = {**SHAPE, "num_hidden_layers": 6, "tie_word_embeddings": True}
    llama = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **deep), dtype=torch.float32).eval()
    llama.model.embed_tokens.load_state_dict(model.model.embed_tokens.state_dict())
    for index, layer in enumerate(llama.model.layers):
        layer.load_state_dict(list(model.model.layers)[index // 2].state_dict())
    ours, theirs = (run(input_ids=IDS, output_hidden_states=True, use_cache=False) for run in (model, llama))
    assert len(ours.hidden_states) == 7 and torch.equal(ours.logits, theirs.logits)
    assert all(torch.equal(state, other) for state, other in zip(ours.hidden_states, theirs.hidden_states, strict=True))


@pytest.mark.parametrize("layer_sharing", [False, True])
def test_a_cache_changes_nothing(layer_sharing: bool) -> None:
    model = build(layer_sharing=layer_sharing)
    whole = model(input_ids=IDS, use_cache=False).logits
    first = model(input_ids=IDS[:, :5], use_cache=True)
    rest = model(input_ids=IDS[:, 5:], past_key_values=first.past_key_values, use_cache=True)
    torch.testing.assert_close(rest.logits, whole[:, 5:], rtol=1e-4, atol=1e-4)
    texts = [model.generate(IDS, max_new_tokens=6, do_sample=False, use_cache=cached) for cached in (True, False)]
    assert torch.equal(*texts)


def test_960_columns_take_the_familys_group_size_and_name_those_that_fit(plan_model: Callable[..., Plan]) -> None:
    with torch.device("meta"):
        config = AutoConfig.for_model("mobilellm", **{**SHAPE, "hidden_size": 960, "num_attention_heads": 15})
        config.num_key_value_heads = 5
        model: nn.Module = AutoModelForCausalLM.from_config(config)

    def rules(size: int) -> dict[str, Any]:
        quantizer = {"name": "sqmp", "high_ratio": 0.125, "group_size": size}
        activations = {"name": "int", "bits": 8, "group_size": size}
        kv_cache = {"name": "int", "bits": 8, "group_size": min(size, 64)}
        return {
            "weights": [{"match": "*", "quantizer": quantizer}],
            "activations": activations,
            "kv_cache": kv_cache,
        }

    assert plan_model(model, **rules(64)).coverage > 0.99
    with pytest.raises(PlanError, match="960 columns are not a multiple of group_size 256; 960, 480, 320, 192, 160"):
        plan_model(model, **rules(256))
