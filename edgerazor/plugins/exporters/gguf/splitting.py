"""How a tokenizer splits text before it merges: the known ways, recognized by their regular expressions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_REGEXES = {_GPT2: "gpt-2", _QWEN2: "qwen2"}
_SPACE = "\u2581"
_AFTER_SPECIAL = (
    "llama.cpp puts a space in front of text after a special token too, the tokenizer at the very start only"
)
_COMPOSING = "llama.cpp does not compose characters (NFC) before it splits text, the tokenizer does"


@dataclass(frozen=True)
class Splitting:
    """`model` and `pre` of the format; `space_prefix` of sentencepiece; remarks for the report."""

    model: str
    pre: str
    space_prefix: bool = False
    notes: tuple[str, ...] = ()


def recognize_splitting(content: Mapping[str, Any]) -> Splitting | None:
    """The way a tokenizer.json splits text; None if it is none that the format has."""
    model = content.get("model") or {}
    if model.get("type") != "BPE" or "vocab" not in model or "merges" not in model:
        return None
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix") or model.get("ignore_merges"):
        return None
    normalizers = _steps(content.get("normalizer"), "normalizers")
    splitters = _steps(content.get("pre_tokenizer"), "pretokenizers")
    if model.get("byte_fallback"):
        return _sentencepiece(normalizers, splitters)
    kinds = [step["type"] for step in normalizers]
    pre = _byte_level(splitters)
    if pre is None or kinds not in ([], ["NFC"]):
        return None
    return Splitting("gpt2", pre, notes=(_COMPOSING,) if kinds else ())


def _steps(step: Any, key: str) -> list[Mapping[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, sequences of them taken apart."""
    if step is None:
        return []
    return [found for inner in step[key] for found in _steps(inner, key)] if step["type"] == "Sequence" else [step]


def _byte_level(splitters: list[Mapping[str, Any]]) -> str | None:
    if not splitters or splitters[-1]["type"] != "ByteLevel" or splitters[-1].get("add_prefix_space"):
        return None
    built_in = splitters[-1].get("use_regex", True)
    if len(splitters) == 1:
        return "gpt-2" if built_in else None
    first = splitters[0]
    if len(splitters) > 2 or built_in or first["type"] != "Split" or first.get("invert"):
        return None
    return _REGEXES.get(first["pattern"].get("Regex")) if first.get("behavior") == "Isolated" else None


def _sentencepiece(normalizers: list[Mapping[str, Any]], splitters: list[Mapping[str, Any]]) -> Splitting | None:
    replaces = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    prepends = {"type": "Prepend", "prepend": _SPACE}
    if not splitters and normalizers in ([prepends, replaces], [replaces]):
        return Splitting("llama", "default", space_prefix=len(normalizers) == 2)
    if normalizers or len(splitters) != 1 or splitters[0]["type"] != "Metaspace":
        return None
    step = splitters[0]
    if step.get("replacement") != _SPACE or step.get("split", True):
        return None
    scheme = step.get("prepend_scheme", "always")
    return Splitting("llama", "default", scheme != "never", (_AFTER_SPECIAL,) if scheme == "first" else ())
