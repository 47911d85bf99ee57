"""Configurations of the published models, so that recipes are planned against their shapes without a download."""

from typing import Any

from transformers import LlamaConfig, Qwen2_5OmniThinkerConfig, Qwen3Config

QWEN3 = {
    "vocab_size": 151_936,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
}
MOBILELLM = {
    "vocab_size": 32_000,
    "hidden_size": 960,
    "intermediate_size": 2560,
    "num_hidden_layers": 32,
    "num_attention_heads": 15,
    "num_key_value_heads": 5,
    "tie_word_embeddings": False,
}
THINKER = {
    "text_config": {
        "vocab_size": 152_064,
        "hidden_size": 3584,
        "intermediate_size": 18_944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    },
    "vision_config": {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "patch_size": 14,
        "window_size": 112,
        "out_hidden_size": 3584,
        "fullatt_block_indexes": [7, 15, 23, 31],
    },
    "audio_config": {
        "d_model": 1280,
        "encoder_layers": 32,
        "encoder_attention_heads": 20,
        "encoder_ffn_dim": 5120,
        "num_mel_bins": 128,
        "output_dim": 3584,
    },
}


def published_config(name: str) -> Any:
    """Configuration by the hub name that a recipe gives."""
    made: dict[str, Any] = {
        "Qwen/Qwen3-0.6B": lambda: Qwen3Config(**QWEN3, hidden_size=1024, intermediate_size=3072),
        "Qwen/Qwen3-1.7B": lambda: Qwen3Config(**QWEN3, hidden_size=2048, intermediate_size=6144),
        "facebook/MobileLLM-ParetoQ-350M-BF16": lambda: LlamaConfig(**MOBILELLM),
        "Qwen/Qwen2.5-Omni-7B": lambda: Qwen2_5OmniThinkerConfig(**THINKER),
    }
    return made[name]()
