"""Packed checkpoints that several tests export; each is made once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf_cases import BODIES, LLAMA, pack_case, rules, sentencepiece_tokenizer

from edgerazor.core.registry import Registry
from edgerazor.pipeline.checkpoint import PackedCheckpoint, open_checkpoint

WIDE = {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 512}
CASES: dict[str, dict[str, Any]] = {
    "qwen3 4-bit g32 tied": {"weights": rules(BODIES["4"], 32)},
    "qwen3 asymmetric g256 untied": {"weights": rules(BODIES["asymmetric"], 256), "tie_word_embeddings": False},
    "qwen3 2.79-bit g64 tied": {"weights": rules(BODIES["2.79"], 64)},
    "qwen3 1.88-bit g128 untied": {"weights": rules(BODIES["1.88"], 128), "tie_word_embeddings": False},
    "qwen3 1.58-bit g256 tied": {"weights": rules(BODIES["1.58"], 256)},
    "llama 1.58-bit g64 untied": {
        "family": "llama",
        "weights": rules(BODIES["1.58"], 64),
        "tokenizer": sentencepiece_tokenizer(),
        "attention_bias": True,
        "tie_word_embeddings": False,
    },
    "llama 1.88-bit g32 tied": {"family": "llama", "weights": rules(BODIES["1.88"], 32)},
    "llama 2.79-bit g256 untied": {
        "family": "llama",
        "weights": rules(BODIES["2.79"], 256),
        "tie_word_embeddings": False,
        **WIDE,
    },
    "llama 4-bit g128 tied": {"family": "llama", "weights": rules(BODIES["4"], 128), **WIDE},
    "llama 8-bit g64 untied": {"family": "llama", "weights": rules(BODIES["8"], 64), "tie_word_embeddings": False},
    "llama half quantized": {
        "family": "llama",
        "weights": [{"match": "*.mlp.*", "quantizer": {"name": "ternary", "group_size": 64}}],
    },
}
HEADS = {name: values.get("num_attention_heads", LLAMA["num_attention_heads"]) for name, values in CASES.items()}
Packed = Callable[[str], PackedCheckpoint]


@pytest.fixture(scope="session")
def packed(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Packed:
    """`packed(case)`: an opened checkpoint; read only."""
    folders: dict[str, Path] = {}

    def make(case: str) -> PackedCheckpoint:
        if case not in folders:
            folders[case] = pack_case(tmp_path_factory.mktemp("case"), registry, **CASES[case])
        return open_checkpoint(folders[case], registry=registry)

    return make
