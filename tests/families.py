"""Tiny configurations of every family that is built in: the one table that tests of adapters and exporters share."""

from typing import Any

import torch
from transformers import AutoConfig, Qwen2_5OmniForConditionalGeneration

from edgerazor.core.discovery import load_plugins
from edgerazor.models.types import auto_class
from tests.adapters.omni_cases import omni_config
from tests.sizes import TINY

SMALL = {
    "vocab_size": 96,
    **TINY,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
MIXTURE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "tie_word_embeddings": False}
MOBILE = {"hidden_size": 96, "num_attention_heads": 6, "share_embedding": True}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
# Of 16 columns of a head 12 turn, slower behind position 32.
LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "partial_rotary_factor": 0.75,
    "short_factor": [1.0, 1.1, 1.2, 1.4, 1.7, 2.0],
    "long_factor": [1.0, 1.5, 2.0, 3.0, 5.0, 8.0],
}
PARTIAL = {"tie_word_embeddings": True, "rope_parameters": LONG_ROPE, "original_max_position_embeddings": 32}
SCALES = {
    "embedding_multiplier": 12.0,
    "attention_multiplier": 0.25,
    "residual_multiplier": 0.5,
    "logits_scaling": 8.0,
}
LOCAL_AND_GLOBAL = {
    "num_hidden_layers": 3,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "sliding_window": 6,
    "query_pre_attn_scalar": 16,
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
    },
}
# name: (model type, values of its configuration besides SMALL)
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("qwen3", {"tie_word_embeddings": True}),
    "qwen3_moe": ("qwen3_moe", MIXTURE),
    "qwen3_moe-some-dense": ("qwen3_moe", {**MIXTURE, "mlp_only_layers": [0], "tie_word_embeddings": True}),
    "llama-biases": ("llama", {"tie_word_embeddings": False, "attention_bias": True}),
    "llama3": ("llama", {"tie_word_embeddings": False, "rope_parameters": LLAMA3_ROPE}),
    "llama3-tied": ("llama", {"tie_word_embeddings": True, "rope_parameters": LLAMA3_ROPE}),
    "smollm2": ("llama", {"hidden_size": 96, "num_attention_heads": 6, "tie_word_embeddings": True}),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 0], "tie_word_embeddings": True}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral-window": ("mistral", {"sliding_window": 6}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "gemma3": ("gemma3_text", LOCAL_AND_GLOBAL),
    "phi4-mini": ("phi3", PARTIAL),
    "olmo2": ("olmo2", {"tie_word_embeddings": False}),
    "granite3": ("granite", {"tie_word_embeddings": True, **SCALES}),
    "mobilellm": ("mobilellm", MOBILE),
    "mobilellm-layer-sharing": ("mobilellm", {**MOBILE, "layer_sharing": True}),
    "mobilellm-as-llama": ("llama", {"hidden_size": 96, "num_attention_heads": 6, "tie_word_embeddings": False}),
    "omni": ("qwen2_5_omni", {}),
}


def family_config(name: str, **changes: Any) -> Any:
    """The tiny configuration of a family, in the class of transformers (`mobilellm` in ours)."""
    load_plugins(external=False).register_models()
    model_type, values = FAMILIES[name]
    if model_type == "qwen2_5_omni":
        return omni_config()
    return AutoConfig.for_model(model_type, **{**SMALL, **values, **changes})


def family_model(name: str, **changes: Any) -> Any:
    """The same random float32 model every time; its norms and biases are random, too."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        config = family_config(name, **changes)
        if config.model_type == "qwen2_5_omni":
            return Qwen2_5OmniForConditionalGeneration(config)
        model = auto_class(config).from_config(config).float().eval()
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.data.add_(0.2 * torch.randn_like(parameter))
    return model
