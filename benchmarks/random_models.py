"""Models by shape: random weights, a tokenizer of full size, and packed checkpoints of them. Figures of size, time and
memory do not depend on what the weights are."""

import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from edgerazor.checkpoint.pack_source import pack_source
from edgerazor.core.discovery import load_plugins

SHAPES: dict[str, dict[str, Any]] = {
    "qwen3-0.6b": {
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 40960,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    },
    "smollm2-135m": {
        "model_type": "llama",
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "head_dim": 64,
        "max_position_embeddings": 8192,
    },
    "tiny": {
        "model_type": "qwen3",
        "vocab_size": 640,
        "hidden_size": 256,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "max_position_embeddings": 256,
    },
}
SPECIAL_TOKENS, SPARE_TOKENS = 26, 267
QWEN_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def float_model(folder: Path, shape: str = "qwen3-0.6b") -> Path:
    """The 16-bit model in `folder`, made once."""
    if (folder / "tokenizer.json").exists():
        return folder
    words = SHAPES[shape]["vocab_size"] - SPARE_TOKENS - SPECIAL_TOKENS
    tokenizer = tokenizer_of_full_size(words)
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
    config = AutoConfig.for_model(**SHAPES[shape], **ends, tie_word_embeddings=True)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            values = torch.randn(parameter.shape, generator=generator) * 0.02
            parameter.copy_(values if parameter.ndim > 1 else torch.ones(parameter.shape))
    model.tie_weights()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def packed_model(root: Path, preset: str, shape: str = "qwen3-0.6b") -> Path:
    """A packed checkpoint by a preset, made once under `root`."""
    folder = root / preset
    if not (folder / "edgerazor.json").exists():
        pack_source(str(float_model(root / "float", shape)), registry=load_plugins(), output=folder, preset=preset)
    return folder


def tokenizer_of_full_size(words: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE with as many words, about as long as Qwen's (six bytes on average), of random letters."""
    generator = random.Random(0)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = ["Ġ", *"etaoinshrdlcumwfgypbvk"]
    known, merges = dict.fromkeys(alphabet), list[tuple[str, str]]()
    parts = [letter for letter in alphabet if letter in letters]
    while len(known) < words:
        left, right = generator.choice(parts), generator.choice(parts)
        made = left + right
        if made in known or "Ġ" in right:
            continue
        known[made] = None
        merges.append((left, right))
        if len(made) <= 4:
            parts.append(made)
    tokenizer = Tokenizer(models.BPE({word: index for index, word in enumerate(known)}, merges))
    tokenizer.normalizer = normalizers.NFC()  # type: ignore[assignment]
    split = pre_tokenizers.Split(Regex(QWEN_REGEX), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    special = [AddedToken(f"<|special_{index}|>", special=True, normalized=False) for index in range(SPECIAL_TOKENS)]
    tokenizer.add_special_tokens(special)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|special_0|>",
        pad_token="<|special_0|>",
        clean_up_tokenization_spaces=False,
    )
