"""How a tokenizer splits text before it merges: the ways that llama.cpp has, found by parts or by what they do."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgerazor.plugins.exporters.probe_texts import probe_texts

_SPACE = "\u2581"
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD, _DIGIT, _DIGITS = r"[^\r\n\p{L}\p{N}]?\p{L}+", r"\p{N}", r"\p{N}{1,3}"
_REST = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_SIGNS, _SIGNS_AND_SLASHES = r" ?[^\s\p{L}\p{N}]+[\r\n]*", r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = (rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*")
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_HAN = "[一-龥\u3040-ゟ゠-ヿ]+"
_DEEPSEEK = (
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
)


@dataclass(frozen=True)
class PreTokenizer:
    """A value of `tokenizer.ggml.pre`.

    Attributes:
        name: the value.
        whole_words: a word that is a token is taken without merging.
        close: splits most texts alike, not all; llama.cpp has had it longer than one that splits all alike.
    """

    name: str
    whole_words: bool = False
    close: bool = False


# What tokenizers of transformers apply one after the other, and the names that llama.cpp has for it.
_KNOWN: dict[tuple[str, ...], tuple[PreTokenizer, ...]] = {
    (_GPT2,): (PreTokenizer("gpt-2"),),
    (_DIGIT, _GPT2): (PreTokenizer("smollm"),),
    ("|".join((_CONTRACTION, _WORD, _DIGIT, _SIGNS, _REST)),): (PreTokenizer("qwen2"),),
    ("|".join((_CONTRACTION, _WORD, _DIGITS, _SIGNS, _REST)),): (
        PreTokenizer("llama-bpe", whole_words=True),
        PreTokenizer("dbrx"),
    ),
    (
        rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_REST}",
    ): (PreTokenizer("qwen35"),),
    # gpt-4o and tekken of llama.cpp take combining marks for signs.
    ("|".join((*(f"{cased}{_CONTRACTION}?" for cased in _CASED), _DIGITS, _SIGNS_AND_SLASHES, _REST)),): (
        PreTokenizer("granite-embed-multi-97m", whole_words=True),
        PreTokenizer("gpt-4o", close=True),
    ),
    ("|".join((*_CASED, _DIGIT, _SIGNS_AND_SLASHES, _REST)),): (PreTokenizer("tekken", whole_words=True, close=True),),
    (_DIGITS, _HAN, _DEEPSEEK): (PreTokenizer("deepseek-v3"),),
}
NAMES = (*(known.name for found in _KNOWN.values() for known in found), "sentencepiece")
_AFTER_SPECIAL = (
    "llama.cpp puts a space in front of text after a special token too, the tokenizer at the very start only"
)
_BEFORE_SPACE = "llama.cpp puts a space in front of text that begins with one too, the tokenizer does not"
_COMPOSING = "llama.cpp does not compose characters (NFC) before it splits text, the tokenizer does"
_BY_BEHAVIOUR = (
    "the pre-tokenizer is written in another way than the known ones, and splits {count} texts as {name} does"
)


@dataclass(frozen=True)
class Splitting:
    """How the format says it.

    Attributes:
        model: of `tokenizer.ggml.model`.
        choices: for `tokenizer.ggml.pre`, the best first.
        space_prefix: of sentencepiece.
        composes: characters are composed (NFC) first.
        notes: for the report.
    """

    model: str
    choices: tuple[str, ...]
    space_prefix: bool = False
    composes: bool = False
    notes: tuple[str, ...] = ()


def recognize_splitting(content: Mapping[str, Any]) -> Splitting | None:
    """The way a tokenizer.json splits text; None if it is none that the format has."""
    model = content.get("model") or {}
    if model.get("type") != "BPE" or "vocab" not in model or "merges" not in model:
        return None
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return None
    if model.get("byte_fallback"):
        return _sentencepiece(content)
    kinds = [step["type"] for step in _steps(content.get("normalizer"), "normalizers")]
    if kinds not in ([], ["NFC"]):
        return None
    parts = _regexes(_steps(content.get("pre_tokenizer"), "pretokenizers"))
    notes = [_COMPOSING] if kinds else []
    known = _KNOWN.get(parts or ())
    if known is None:
        known = _find_by_behaviour(content)
    choices = _suited(known, content) if known else ()
    if choices and parts not in _KNOWN:
        notes.append(_BY_BEHAVIOUR.format(count=len(probe_texts()), name=choices[0]))
    return Splitting("gpt2", choices, composes=bool(kinds), notes=tuple(notes)) if choices else None


def _suited(known: tuple[PreTokenizer, ...], content: Mapping[str, Any]) -> tuple[str, ...]:
    """Names that take whole words as the tokenizer does, or any where merging makes every token; close ones last."""
    whole = bool(content["model"].get("ignore_merges"))
    suited = [choice for choice in known if choice.whole_words == whole]
    if (not suited or suited[0].close) and _merges_make_every_token(content):
        suited += [choice for choice in known if choice not in suited]
    return tuple(choice.name for choice in sorted(suited, key=lambda choice: choice.close))


def _merges_make_every_token(content: Mapping[str, Any]) -> bool:
    from tokenizers import Tokenizer, models

    model, added = content["model"], {token["content"] for token in content.get("added_tokens", [])}
    merges = list(map(split_pair, model["merges"]))
    merging = Tokenizer(models.BPE(dict(model["vocab"]), merges))
    numbers = [(text, number) for text, number in model["vocab"].items() if text not in added]
    encoded = merging.encode_batch([text for text, _ in numbers], add_special_tokens=False)
    return all(found.ids == [number] for found, (_, number) in zip(encoded, numbers, strict=True))


def split_pair(pair: Any) -> tuple[str, str]:
    """A merge of tokenizer.json, which is a pair, or a text with a space."""
    first, second = pair.split(" ", 1) if isinstance(pair, str) else pair
    return first, second


def _steps(step: Any, key: str) -> list[Mapping[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, sequences of them taken apart."""
    if step is None:
        return []
    return [found for inner in step[key] for found in _steps(inner, key)] if step["type"] == "Sequence" else [step]


def _regexes(splitters: list[Mapping[str, Any]]) -> tuple[str, ...] | None:
    """Regular expressions that are applied one after the other before bytes become characters."""
    if not splitters or splitters[-1]["type"] != "ByteLevel" or splitters[-1].get("add_prefix_space"):
        return None
    found: list[str] = []
    for step in splitters[:-1]:
        regex = (step.get("pattern") or {}).get("Regex")
        # A regex that matches all of any text, as every one that stands alone, may also remove what it does not match.
        way = step.get("behavior"), bool(step.get("invert"))
        keeps = way == ("Isolated", False) or (way == ("Removed", True) and len(splitters) == 2)
        if step["type"] == "Digits":
            found.append(_DIGIT if step.get("individual_digits") else r"\p{N}+")
        elif step["type"] == "Split" and regex and keeps:
            found.append(regex)
        else:
            return None
    return (*found, _GPT2) if splitters[-1].get("use_regex", True) else tuple(found)


def _find_by_behaviour(content: Mapping[str, Any]) -> tuple[PreTokenizer, ...] | None:
    """Names whose parts split every probe text as this tokenizer's pre-tokenizer does."""
    if content.get("pre_tokenizer") is None:
        return None
    mine, texts = _stub(pre_tokenizer=content["pre_tokenizer"]).pre_tokenizer, probe_texts()
    pieces = [mine.pre_tokenize_str(text) for text in texts]
    bytewise = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    for regexes, known in _KNOWN.items():
        splits = [
            {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False} for regex in regexes
        ]
        other = _stub(pre_tokenizer={"type": "Sequence", "pretokenizers": [*splits, bytewise]}).pre_tokenizer
        if all(other.pre_tokenize_str(text) == found for text, found in zip(texts, pieces, strict=True)):
            return known
    return None


def _sentencepiece(content: Mapping[str, Any]) -> Splitting | None:
    """Spaces become U+2581, one may be put in front, and nothing is split: whatever steps do that."""
    stub = _stub(normalizer=content.get("normalizer"), pre_tokenizer=content.get("pre_tokenizer"))
    prefixed = _whole(stub, "x") == _SPACE + "x"
    notes = {}
    for text in probe_texts():
        escaped, found = text.replace(" ", _SPACE), _whole(stub, text)
        if found == (_SPACE if prefixed else "") + escaped:
            continue
        if found != escaped or not prefixed or not text.startswith(" "):
            return None
        notes[_BEFORE_SPACE] = True
    scheme = [step.get("prepend_scheme") for step in _steps(content.get("pre_tokenizer"), "pretokenizers")]
    if prefixed and "first" in scheme:
        notes[_AFTER_SPECIAL] = True
    return Splitting("llama", ("default",), prefixed, notes=tuple(notes))


def _whole(stub: Any, text: str) -> str | None:
    """The text as it is merged; None if it is split."""
    normalized = stub.normalizer.normalize_str(text) if stub.normalizer else text
    pieces = (
        [piece for piece, _ in stub.pre_tokenizer.pre_tokenize_str(normalized)] if stub.pre_tokenizer else [normalized]
    )
    return pieces[0] if len(pieces) == 1 else None


def _stub(**steps: Any) -> Any:
    """A tokenizer without a vocabulary that has these steps of a tokenizer.json."""
    from tokenizers import Tokenizer

    empty = ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")
    model = {"type": "BPE", "vocab": {}, "merges": []}
    written = {"version": "1.0", "added_tokens": [], **dict.fromkeys(empty), **steps, "model": model}
    return Tokenizer.from_str(json.dumps(written))
