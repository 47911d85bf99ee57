"""Qwen3-0.6B by shape: random weights, a tokenizer of full size, and packed checkpoints of it. Figures of size, time
and memory do not depend on what the weights are."""

import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from edgerazor.checkpoint.pack_source import pack_source
from edgerazor.core.discovery import load_plugins

QWEN3_06B = {
    "vocab_size": 151936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
}
WORDS = 151_643
QWEN_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def float_model(folder: Path) -> Path:
    """The 16-bit model in `folder`, made once."""
    if (folder / "tokenizer.json").exists():
        return folder
    config = AutoConfig.for_model("qwen3", **QWEN3_06B)
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
    tokenizer_of_full_size().save_pretrained(folder)
    return folder


def packed_model(root: Path, preset: str) -> Path:
    """A packed checkpoint by a preset, made once under `root`."""
    folder = root / preset
    if not (folder / "edgerazor.json").exists():
        pack_source(str(float_model(root / "float")), registry=load_plugins(), output=folder, preset=preset)
    return folder


def tokenizer_of_full_size() -> PreTrainedTokenizerFast:
    """Byte-level BPE with as many tokens as Qwen's, about as long (six bytes on average), of random letters."""
    generator = random.Random(0)
    words = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = ["Ġ", *"etaoinshrdlcumwfgypbvk"]
    known, merges = dict.fromkeys(words), list[tuple[str, str]]()
    parts = [word for word in words if word in letters]
    while len(known) < WORDS:
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
    special = [AddedToken(f"<|special_{index}|>", special=True, normalized=False) for index in range(26)]
    tokenizer.add_special_tokens(special)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|special_0|>",
        pad_token="<|special_0|>",
        clean_up_tokenization_spaces=False,
    )
