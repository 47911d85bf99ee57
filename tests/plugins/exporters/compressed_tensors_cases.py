"""Checkpoints of one layer that are exported for vLLM and Transformers, and what is asked of the folders."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf_cases import BODIES, pack_case, rules
from transformers import AutoModelForCausalLM

from edgerazor.checkpoint import PackedCheckpoint, open_checkpoint
from edgerazor.core.registry import Registry
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.export.export import export_to

ONE_LAYER: dict[str, Any] = {"num_hidden_layers": 1}
UNTIED = {"tie_word_embeddings": False}
CASES: dict[str, dict[str, Any]] = {
    "4-bit": {"weights": rules(BODIES["4"], 32)},
    "asymmetric, untied": {"weights": rules(BODIES["asymmetric"], 256), **UNTIED},
    "signed scales": {"weights": rules(BODIES["signed"], 32)},
    "8-bit": {"weights": rules(BODIES["8"], 64), "family": "llama"},
    "2.79-bit, untied": {"weights": rules(BODIES["2.79"], 64), **UNTIED, "family": "llama", "attention_bias": True},
    "1.88-bit": {"weights": rules(BODIES["1.88"], 256)},
    "1.58-bit": {"weights": rules(BODIES["1.58"], 128)},
    "one scale a row": {"weights": [{"match": "*", "quantizer": {"name": "ternary"}}]},
    "rows of 100": {"weights": rules(BODIES["4"], 4), "intermediate_size": 100},
    "mlp alone": {"weights": [{"match": "*.mlp.*", "quantizer": {"name": "ternary", "group_size": 64}}]},
}
IDS = [3, 77, 12, 250, 9]
EMBEDDING = "model.embed_tokens.weight"


class OneLayer:
    """Opened checkpoints of the cases, each made once.

    Args:
        registry: of all of them.
        factory: of folders.
    """

    def __init__(self, registry: Registry, factory: pytest.TempPathFactory):
        self._registry, self._factory, self._folders = registry, factory, dict[str, Path]()

    def __call__(self, case: str) -> PackedCheckpoint:
        if case not in self._folders:
            folder = self._factory.mktemp("case")
            self._folders[case] = pack_case(folder, self._registry, **{**ONE_LAYER, **CASES[case]})
        return open_checkpoint(self._folders[case], registry=self._registry)


def export(checkpoint: PackedCheckpoint, path: Path, *settings: str) -> Any:
    """What was written and what is said of it; it was compared and run."""
    return export_to(checkpoint.folder, "compressed-tensors", path, settings, registry=checkpoint.registry)


def section(path: Path) -> dict[str, Any]:
    """What config.json says of the quantization."""
    return json.loads((path / "config.json").read_text())["quantization_config"]


def load(path: Path) -> Any:
    """The folder in Transformers in float32, decompressed."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    with torch.no_grad():
        model(input_ids=torch.tensor([IDS]) % model.config.vocab_size)
    return model


def different_weights(checkpoint: PackedCheckpoint, found: dict[str, torch.Tensor]) -> list[str]:
    """Names of weights that are not codes times scales in float32; an embedding kept at 16 bit is rounded once."""
    expected = {}
    for name in checkpoint.names():
        value = checkpoint.read(name)
        expected[name] = value.dequantize() if isinstance(value, QuantizedTensor) else value.float()
    for head, owner in checkpoint.tied.items():
        expected[f"{head}.weight"] = expected[f"{owner}.weight"]
    if EMBEDDING.removesuffix(".weight") in checkpoint.section.modules:
        expected[EMBEDDING] = expected[EMBEDDING].half().float()
    return [name for name, weight in expected.items() if not torch.equal(found[name], weight)]
