"""What a tiny run needs, made in a temporary folder: model, tokenizer, data, recipe."""

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from tests.sizes import TINY

END = "<|endoftext|>"
SIZES = {"weights": 32, "activations": 32, "kv_cache": 16}
LINES = [f"def f{index}(x):\n    return x * {index} + len('word{index % 7}')\n" for index in range(160)]


def tokenizer(texts: list[str] = LINES, size: int = 320) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on a few lines."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END, pad_token=END)


def save_model(folder: Path, *, seed: int = 0, vocabulary: int | None = None, **values: Any) -> Path:
    """A random Qwen3 with two layers of width 64 and its tokenizer, as a 16-bit model folder."""
    words = tokenizer()
    config = Qwen3Config(
        **{
            "vocab_size": vocabulary or len(words),
            **TINY,
            "max_position_embeddings": 128,
            "initializer_range": 0.2,
            "tie_word_embeddings": True,
            "eos_token_id": words.eos_token_id,
            "pad_token_id": words.pad_token_id,
            "bos_token_id": None,
            **values,
        }
    )
    torch.manual_seed(seed)
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def save_data(path: Path, lines: list[str] = LINES) -> Path:
    """The lines as JSON lines of text."""
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines), encoding="utf-8")
    return path


def quantization(body: dict[str, Any] | None = None) -> dict[str, Any]:
    """int4 embedding and head, ternary body, int8 activations, keys and values; groups fit width 64."""
    return {
        "weights": [
            {"match": ["*.embed_tokens", "lm_head"], "quantizer": {"name": "int", "bits": 4, "group_size": 32}},
            {"match": "*", "quantizer": body or {"name": "ternary", "group_size": 32}},
        ],
        "activations": {"name": "int", "bits": 8, "group_size": 32},
        "kv_cache": {"name": "int", "bits": 8, "group_size": 16},
    }


def recipe(folder: Path, **sections: Any) -> dict[str, Any]:
    """A recipe of eight short steps that is independent of batch and rank: gamma per sequence, fixed layers."""
    model = folder / "model"
    if not model.exists():
        save_model(model)
        save_data(folder / "data.jsonl")
    layers = {"name": "fixed", "layers": ["low", "high"]}
    default: dict[str, Any] = {
        "model": {"name_or_path": str(model)},
        "data": {"sources": [str(folder / "data.jsonl")], "sequence_length": 64, "held_out": 0.1},
        "quantization": quantization(),
        "distillation": {
            "task_weight": 0.1,
            "losses": [
                {"name": "eakld", "weight": 2.0, "scope": "sequence"},
                {"name": "feature_mse", "weight": 0.1, "layers": layers},
            ],
        },
        "training": {
            "max_steps": 8,
            "per_device_train_batch_size": 4,
            "learning_rate": 1e-3,
            "logging_steps": 1,
            "use_cpu": True,
        },
    }
    for name, section in sections.items():
        both = isinstance(section, dict) and isinstance(default.get(name), dict)
        default[name] = {**default[name], **section} if both else section
    return default


def preset_recipe(model: Path, data: Path, **sections: Any) -> dict[str, Any]:
    """A recipe of two steps on the CPU by a preset, whose layer selector asks for three layers; sections replace."""
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
    """The recipe as YAML."""
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path
