"""Folders that the command line is tried on: a tiny model with its tokenizer, data, and a recipe for both."""

from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

SIZES = {"weights": 32, "activations": 32, "kv_cache": 16}
DOCUMENTS = [f"Document {number}: the quick brown fox jumps over {number} lazy dogs." for number in range(40)]


def write_model(folder: Path, *, extra_tokens: int = 0, **values: Any) -> Path:
    """A seeded three-layer Qwen3 with a byte-level tokenizer of 257 + `extra_tokens` tokens."""
    tokenizer = byte_tokenizer(extra_tokens)
    config = AutoConfig.for_model(
        "qwen3",
        **{
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": 128,
            "tie_word_embeddings": True,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.eos_token_id,
            **values,
        },
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def byte_tokenizer(extra_tokens: int = 0) -> PreTrainedTokenizerFast:
    """One token per byte, then end of text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(f"extra{number}" for number in range(extra_tokens))]
    tokenizer = Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")


def write_data(path: Path, documents: list[str] | None = None) -> Path:
    """JSON lines with a `text` column."""
    lines = [f'{{"text": "{text}"}}\n' for text in (DOCUMENTS if documents is None else documents)]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def recipe_content(model: Path, data: Path, **sections: Any) -> dict[str, Any]:
    """A recipe that trains two steps on the CPU."""
    return {
        "model": {"name_or_path": str(model)},
        "preset": {"name": "1.88-bit", "group_sizes": SIZES},
        "data": {"sources": [{"path": str(data)}], "sequence_length": 64, "held_out": 0.2},
        "training": {
            "max_steps": 2,
            "per_device_train_batch_size": 2,
            "use_cpu": True,
            "save_steps": 1,
            "logging_steps": 1,
            "learning_rate": 1e-3,
        },
        "evaluation": {"batches": 1, "batch_size": 2},
        **sections,
    }


def write_recipe(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path
