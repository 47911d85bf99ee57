"""Small tokenizers with the normalizers and pre-tokenizers that families publish, trained on texts that part them."""

import json
from functools import cache
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, processors, trainers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from edgerazor.plugins.exporters.gguf.probe_texts import probe_texts

SIZE = 900
SPACE = "\u2581"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
)
_CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD, _REST = r"[^\r\n\p{L}\p{N}]?\p{L}+", r"\s*[\r\n]+|\s+(?!\S)|\s+"
_SIGNS, _SLASHES = r" ?[^\s\p{L}\p{N}]+[\r\n]*", r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
REGEXES = {
    "qwen2": "|".join([_CONTRACTION, _WORD, r"\p{N}", _SIGNS, _REST]),
    "llama3": "|".join([_CONTRACTION, _WORD, r"\p{N}{1,3}", _SIGNS, _REST]),
    "o200k": "|".join([*(f"{cased}{_CONTRACTION}?" for cased in _CASED), r"\p{N}{1,3}", _SLASHES, _REST]),
    "qwen3.5": rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_REST}",
    "tekken": "|".join([*_CASED, r"\p{N}", _SLASHES, _REST]),
}


def _split(regex: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def _bytes(use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _regex(name: str) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": [_split(REGEXES[name]), _bytes(False)]}


_DIGITS = {"type": "Digits", "individual_digits": True}
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
_PREPEND = {"type": "Prepend", "prepend": SPACE}
# Normalizer, pre-tokenizer, `ignore_merges`, and the name that llama.cpp has for it.
BYTE_LEVEL: dict[str, tuple[Any, Any, bool, str]] = {
    "GPT-2": (None, _bytes(True), False, "gpt-2"),
    "SmolLM2, Granite 3": (None, {"type": "Sequence", "pretokenizers": [_DIGITS, _bytes(True)]}, False, "smollm"),
    "Qwen2, Qwen3": ({"type": "NFC"}, _regex("qwen2"), False, "qwen2"),
    "Llama 3, SmolLM3": (None, _regex("llama3"), True, "llama-bpe"),
    "OLMo 2": (None, _regex("llama3"), False, "dbrx"),
    "Phi-4-mini": (None, _regex("o200k"), False, "granite-embed-multi-97m"),
}
_DEEPSEEK = (
    r"\p{N}{1,3}",
    "[一-龥\u3040-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*"
    "|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
)
BYTE_LEVEL["Qwen3.5"] = ({"type": "NFC"}, _regex("qwen3.5"), False, "qwen35")
BYTE_LEVEL["DeepSeek-V3"] = (
    None,
    {"type": "Sequence", "pretokenizers": [*map(_split, _DEEPSEEK), _bytes(False)]},
    False,
    "deepseek-v3",
)
TEKKEN = (None, _regex("tekken"), True, "tekken")
SENTENCEPIECE: dict[str, tuple[Any, Any]] = {
    "Llama 2, Mistral": ({"type": "Sequence", "normalizers": [_PREPEND, _REPLACE]}, None),
    "Gemma 3": (
        _REPLACE,
        {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
    ),
}


def byte_level(name: str, parts: tuple[Any, Any, bool, str] | None = None) -> PreTrainedTokenizerFast:
    """A trained tokenizer with these parts, a beginning, two ends of a text and an ordinary added token."""
    normalizer, pre_tokenizer, whole_words, _ = parts or BYTE_LEVEL[name]
    written = json.loads(_trained(json.dumps(normalizer), json.dumps(pre_tokenizer)))
    written["model"]["ignore_merges"] = whole_words
    tokenizer = Tokenizer.from_str(json.dumps(written))
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    return _finished(tokenizer, bos_token="<|begin|>", eos_token="<|im_end|>", extra=["<|im_start|>", "<|stop|>"])


@cache
def _trained(normalizer: str, pre_tokenizer: str) -> str:
    tokenizer = Tokenizer(models.BPE())
    written = json.loads(tokenizer.to_str())
    tokenizer = Tokenizer.from_str(
        json.dumps({**written, "normalizer": json.loads(normalizer), "pre_tokenizer": json.loads(pre_tokenizer)})
    )
    trainer: Any = trainers.BpeTrainer
    tokenizer.train_from_iterator(
        list(probe_texts()) * 2,
        trainer(vocab_size=SIZE, initial_alphabet=ByteLevel.alphabet(), show_progress=False, max_token_length=24),
    )
    return tokenizer.to_str()


def sentencepiece(name: str) -> PreTrainedTokenizerFast:
    """Merges trained on words with their space in front, completed as converters of sentencepiece complete them."""
    normalizer, pre_tokenizer = SENTENCEPIECE[name]
    letters, made = _trained_words()
    vocabulary = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *made]
    known = set(letters) | set(made)
    merges = [
        (token[:index], token[index:])
        for token in made
        for index in range(1, len(token))
        if token[:index] in known and token[index:] in known
    ]
    numbers = {token: number for number, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(numbers, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    written = json.loads(tokenizer.to_str())
    tokenizer = Tokenizer.from_str(json.dumps({**written, "normalizer": normalizer, "pre_tokenizer": pre_tokenizer}))
    tokenizer.decoder = decoders.Sequence(  # type: ignore[assignment]
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return _finished(tokenizer, bos_token="<bos>", eos_token="<eos>", extra=["<start_of_turn>", "<end_of_turn>"])


@cache
def _trained_words() -> tuple[list[str], list[str]]:
    tokenizer = Tokenizer(models.BPE())
    replaced = [text.replace(" ", SPACE).replace("\0", "") for text in probe_texts()]
    trainer: Any = trainers.BpeTrainer
    tokenizer.train_from_iterator(replaced * 2, trainer(vocab_size=SIZE, show_progress=False, max_token_length=12))
    vocabulary = tokenizer.get_vocab()
    ordered = sorted(vocabulary, key=lambda token: vocabulary[token])
    return [token for token in ordered if len(token) == 1], [token for token in ordered if len(token) > 1]


def _finished(tokenizer: Tokenizer, *, bos_token: str, eos_token: str, extra: list[str]) -> PreTrainedTokenizerFast:
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in (bos_token, eos_token, *extra)])
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=f"{bos_token} $A", special_tokens=[(bos_token, int(tokenizer.token_to_id(bos_token)))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos_token, eos_token=eos_token)
