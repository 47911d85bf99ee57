"""Tiny packed checkpoints to export, with tokenizers of the kinds that the format knows."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from edgerazor.checkpoint import PackedCheckpoint, open_checkpoint, pack_model
from edgerazor.core.packing import content_digest
from edgerazor.core.registry import Registry
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.schemas.recipe import load_recipe
from tests.packed_cases import update_manifest

VOCABULARY = 320
PROFILES = ("size", "speed_cpu", "compatible")
QWEN2_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN3 = {
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 128,
    "initializer_range": 0.08,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
LLAMA = {**QWEN3, "hidden_size": 320, "intermediate_size": 640, "num_attention_heads": 5, "num_key_value_heads": 1}


def rules(body: Mapping[str, Any], group_size: int) -> list[dict[str, Any]]:
    """Weight rules: int4 embedding and head, `body` for the rest."""
    outer = {"name": "int", "bits": 4, "group_size": group_size}
    return [
        {"match": ["*.embed_tokens", "lm_head"], "quantizer": outer},
        {"match": "*", "quantizer": {**body, "group_size": group_size}},
    ]


BODIES: dict[str, dict[str, Any]] = {
    "4": {"name": "int", "bits": 4},
    "asymmetric": {"name": "int", "bits": 4, "symmetric": False},
    "signed": {"name": "int", "bits": 4, "symmetric": False, "scale": "signed_absmax"},
    "8": {"name": "int", "bits": 8},
    "2.79": {"name": "sqmp", "high_ratio": 0.5},
    "1.88": {"name": "sqmp", "high_ratio": 0.125},
    "1.58": {"name": "ternary"},
}


def pack_case(
    folder: Path,
    registry: Registry,
    *,
    family: str = "qwen3",
    weights: list[dict[str, Any]] | None = None,
    tokenizer: PreTrainedTokenizerFast | None = None,
    change: Callable[[Any], None] | None = None,
    dtype: torch.dtype = torch.bfloat16,
    **values: Any,
) -> Path:
    """Build a seeded random 16-bit model with its tokenizer, pack it, and return the packed folder."""
    source = folder / "float"
    config = AutoConfig.for_model(family, **{**(QWEN3 if family == "qwen3" else LLAMA), **values})
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
        if change is not None:
            change(model)
    model.to(dtype).save_pretrained(source)
    (tokenizer or byte_level_tokenizer()).save_pretrained(source)
    section = {"weights": rules(BODIES["1.58"], 64) if weights is None else weights}
    recipe = load_recipe({"model": {"name_or_path": str(source)}, "quantization": section}, registry=registry)
    pack_model(recipe, registry=registry, output=folder / "packed")
    return folder / "packed"


def expected_rows(checkpoint: PackedCheckpoint, name: str, heads: int = 0) -> Tensor:
    """float32 values of a tensor, in the order in which a file of the llama family holds the rows of q and k."""
    value = checkpoint.read(name)
    dense = value.dequantize() if isinstance(value, QuantizedTensor) else value.float()
    if not heads:
        return dense
    width = dense.shape[0] // heads
    order = [head * width + e * width // 2 + k for head in range(heads) for k in range(width // 2) for e in range(2)]
    return dense[order]


def seal(folder: Path) -> None:
    """Make digest, sizes and hashes agree with tensors that were changed, as if a quantizer had made them so."""
    checkpoint = open_checkpoint(folder)
    modules = sorted(checkpoint.section.modules)
    digest = content_digest((name, checkpoint.read(f"{name}.weight")) for name in modules)  # type: ignore[misc]
    for path, keys in ((folder / "config.json", ("quantization_config",)), (folder / "edgerazor.json", ())):
        content = json.loads(path.read_text())
        place = content
        for key in keys:
            place = place[key]
        place["content_sha256"] = digest
        path.write_text(json.dumps(content))
    update_manifest(folder)


def byte_level_tokenizer(*, qwen: bool = False, template: str | None = None) -> PreTrainedTokenizerFast:
    """Every byte, a few merges, an end-of-text token and an ordinary added one; splits as GPT-2 or as Qwen does."""
    words = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("i", "n"), ("1", "2"), ("Ċ", "Ċ")]
    vocabulary = {word: index for index, word in enumerate([*words, *("".join(pair) for pair in merges)])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    byte_level: Any = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not qwen)
    if qwen:
        tokenizer.normalizer = normalizers.NFC()  # type: ignore[assignment]
        split = pre_tokenizers.Split(Regex(QWEN2_REGEX), behavior="isolated")
        byte_level = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.pre_tokenizer = byte_level
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")
    if template:
        fast.chat_template = template
    return fast


def sentencepiece_tokenizer(merges: list[tuple[str, str]] | None = None) -> PreTrainedTokenizerFast:
    """Characters, bytes and every merge of a few words, with a space put in front and <s> before each text."""
    chosen = merges or [("\u2581", "t"), ("h", "e"), ("\u2581t", "he"), ("\u2581th", "e"), ("\u2581t", "h"), ("i", "n")]
    made = list(dict.fromkeys("".join(pair) for pair in chosen))
    letters = sorted({letter for word in made for letter in word} | set("abcdefghijklmnopqrstuvwxyz.,"))
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *made]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, chosen, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(  # type: ignore[assignment]
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.decoder = decoders.Sequence(  # type: ignore[assignment]
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )


WIDE = {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 512}
CASES: dict[str, dict[str, Any]] = {
    "qwen3 4-bit g32 tied": {"weights": rules(BODIES["4"], 32)},
    "qwen3 asymmetric g256 untied": {"weights": rules(BODIES["asymmetric"], 256), "tie_word_embeddings": False},
    "llama signed g32 tied": {"family": "llama", "weights": rules(BODIES["signed"], 32)},
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
    "qwen2 1.58-bit g256 tied": {
        "family": "qwen2",
        "weights": rules(BODIES["1.58"], 256),
        "tokenizer": byte_level_tokenizer(qwen=True),
        **WIDE,
    },
    "llama half quantized": {
        "family": "llama",
        "weights": [{"match": "*.mlp.*", "quantizer": {"name": "ternary", "group_size": 64}}],
    },
}
HEADS = {name: values.get("num_attention_heads", LLAMA["num_attention_heads"]) for name, values in CASES.items()}
Packed = Callable[[str], PackedCheckpoint]


def make(registry: Registry, path: Path, **settings: Any) -> Any:
    """The exporter, built as a recipe builds it."""
    return registry.build(registry.params("exporter", "gguf", path=str(path), **settings))


def stored_heads(case: str, name: str) -> int:
    """Heads whose rows the llama family reorders."""
    if not case.startswith("llama"):
        return 0
    kv_heads = CASES[case].get("num_key_value_heads", 1)
    return HEADS[case] if ".q_proj." in name else kv_heads if ".k_proj." in name else 0
