"""Checkpoints that are exported to ONNX Runtime, and the arithmetic of its int8 activations."""

from pathlib import Path
from typing import Any

import numpy as np
from gguf_cases import BODIES, LLAMA, rules
from numpy.typing import NDArray

from edgerazor.core.registry import Registry

SMALL = {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 512}
# Tracing costs seconds a layer; the cases without this have two.
SHORT = {"num_hidden_layers": 1}
EXPORTS: dict[str, dict[str, Any]] = {
    "qwen3 4-bit g32 tied": {"weights": rules(BODIES["4"], 32), **SHORT},
    "qwen3 asymmetric g256 untied": {
        "weights": rules(BODIES["asymmetric"], 256),
        "tie_word_embeddings": False,
        **SHORT,
    },
    "qwen3 signed g32 tied": {"weights": rules(BODIES["signed"], 32), **SHORT},
    "qwen3 2.79-bit g64 untied": {"weights": rules(BODIES["2.79"], 64), "tie_word_embeddings": False},
    "qwen3 1.88-bit g128 tied": {"weights": rules(BODIES["1.88"], 128)},
    "qwen3 1.58-bit g256 tied": {"weights": rules(BODIES["1.58"], 256)},
    "llama 1.58-bit g64 untied": {
        "family": "llama",
        "weights": rules(BODIES["1.58"], 64),
        "attention_bias": True,
        "tie_word_embeddings": False,
        **SHORT,
    },
    "llama 8-bit g32 tied": {"family": "llama", "weights": rules(BODIES["8"], 32), **SHORT},
    "qwen2 1.88-bit g256 tied": {
        "family": "qwen2",
        "weights": rules(BODIES["1.88"], 256),
        **{key: value for key, value in {**LLAMA, **SMALL, **SHORT}.items() if key != "head_dim"},
    },
    "llama half quantized": {
        "family": "llama",
        "weights": [{"match": "*.mlp.*", "quantizer": {"name": "ternary", "group_size": 64}}],
        **SHORT,
    },
}


def make_onnx(registry: Registry, path: Path, **settings: Any) -> Any:
    """The exporter, built as a recipe builds it."""
    return registry.build(registry.params("exporter", "onnx", path=str(path), **settings))


def round_activations(x: NDArray[np.float32], block: int) -> NDArray[np.float32]:
    """What accuracy level 4 makes of the input of a product: int8 per row and block (ONNX section 2.1)."""
    groups = x.astype(np.float32).reshape(*x.shape[:-1], -1, block)
    largest = np.abs(groups).max(axis=-1, keepdims=True)
    inverse = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 0)
    return (np.rint(groups * inverse) * (largest / np.float32(127))).reshape(x.shape)
