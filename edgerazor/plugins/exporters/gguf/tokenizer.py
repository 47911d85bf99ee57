"""The tokenizer as keys of the format, from the checkpoint's own tokenizer.json.

A wrong pre-tokenizer or a missing merge loads and splits text differently without a word, so what is not recognized is
refused.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgerazor.errors import ExportError
from edgerazor.plugins.exporters.common import read_json
from edgerazor.plugins.exporters.gguf.splitting import Splitting, recognize_splitting

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_SPECIAL = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


@dataclass(frozen=True)
class TokenizerKeys:
    """Keys for the file, a line for everything that cannot be expressed, and remarks for the report."""

    keys: dict[str, Any]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def describe_tokenizer(folder: Path, config: Mapping[str, Any], rows: int) -> TokenizerKeys:
    """Tokens, types, merges or scores, special tokens and chat template.

    Args:
        folder: of the checkpoint.
        config: its config.json, for special tokens that the tokenizer does not name.
        rows: of the embedding; the token list is filled up to it.
    """
    try:
        if not (folder / "tokenizer.json").exists():
            return TokenizerKeys({}, ("tokenizer.json is missing in the checkpoint; a GGUF needs the tokenizer",))
        content = read_json(folder / "tokenizer.json")
        settings = read_json(folder / "tokenizer_config.json", optional=True)
        return _describe(folder, content, settings, config, rows)
    except ExportError as error:
        return TokenizerKeys({}, (str(error),))
    except (LookupError, TypeError, AttributeError) as error:
        return TokenizerKeys({}, (f"tokenizer.json: is not what a tokenizer saves: {type(error).__name__}: {error}",))


def _describe(
    folder: Path, content: Mapping[str, Any], settings: Mapping[str, Any], config: Mapping[str, Any], rows: int
) -> TokenizerKeys:
    splitting = recognize_splitting(content)
    if splitting is None:
        known = "gpt-2, qwen2, sentencepiece"
        return TokenizerKeys({}, (f"this pre-tokenizer is unknown to the exporter; known: {known}",))
    numbers = {
        **content["model"]["vocab"],
        **{token["content"]: token["id"] for token in content.get("added_tokens", [])},
    }
    highest = max(numbers.values(), default=-1)
    if highest >= rows:
        return TokenizerKeys({}, (f"tokenizer.json: numbers tokens up to {highest}, the embedding has {rows} rows",))
    tokens, types = _tokens(content, splitting, rows)
    keys: dict[str, Any] = {
        "tokenizer.ggml.model": splitting.model,
        "tokenizer.ggml.pre": splitting.pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
    }
    problems = _add_merges(keys, content, splitting, tokens, types)
    special = _special_tokens(settings, config, numbers)
    keys |= {f"tokenizer.ggml.{_SPECIAL[name]}_token_id": number for name, number in special.items()}
    problems += _add_surroundings(keys, content, {tokens[number]: name for name, number in reversed(special.items())})
    problems += _odd_added_tokens(content)
    template = _chat_template(folder, settings)
    if template:
        keys["tokenizer.chat_template"] = template
    notes = (
        [] if "eos" in special else ["the tokenizer names no end-of-text token; llama.cpp then takes one of its own"]
    )
    return TokenizerKeys(keys, tuple(problems), (*splitting.notes, *notes))


def _tokens(content: Mapping[str, Any], splitting: Splitting, rows: int) -> tuple[list[str], list[int]]:
    """Text and type of every row of the embedding; rows without a token are filled up."""
    tokens, types = [f"[PAD {index}]" for index in range(rows)], [UNUSED] * rows
    for text, index in content["model"]["vocab"].items():
        tokens[index], types[index] = text, NORMAL
        if splitting.model == "llama" and len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            types[index] = BYTE
    for added in content.get("added_tokens", []):
        tokens[added["id"]] = added["content"]
        types[added["id"]] = CONTROL if added.get("special") else USER_DEFINED
    unknown = content["model"].get("unk_token")
    if splitting.model == "llama" and unknown in content["model"]["vocab"]:
        types[content["model"]["vocab"][unknown]] = UNKNOWN
    return tokens, types


def _add_merges(
    keys: dict[str, Any], content: Mapping[str, Any], splitting: Splitting, tokens: list[str], types: list[int]
) -> list[str]:
    merges = [
        tuple(pair.split(" ", 1)) if isinstance(pair, str) else tuple(pair) for pair in content["model"]["merges"]
    ]
    if splitting.model == "gpt2":
        keys["tokenizer.ggml.merges"] = [" ".join(pair) for pair in merges]
        return [] if merges else ["tokenizer.json: has no merges; llama.cpp reads no such tokenizer"]
    normal = {text for text, kind in zip(tokens, types, strict=True) if kind == NORMAL}
    scores, problem = token_scores(normal, merges)
    keys["tokenizer.ggml.scores"] = [scores.get(text, 0.0) if text in normal else 0.0 for text in tokens]
    keys["tokenizer.ggml.add_space_prefix"] = splitting.space_prefix
    return [problem] if problem else []


def token_scores(tokens: Collection[str], merges: Sequence[tuple[str, ...]]) -> tuple[dict[str, float], str]:
    """Sentencepiece scores of the tokens that merges make, first merge 0, then falling; and what does not fit, or "".

    llama.cpp joins any two neighbours whose text is a token, best score first; a merge list joins listed pairs in their
    order. Both give the same tokens if every pair that makes a token is listed and the pairs of one token stand
    together.

    Args:
        tokens: ordinary tokens, single characters included.
        merges: pairs in the order in which they are joined.
    """
    scores: dict[str, float] = {}
    pairs: dict[str, set[tuple[str, ...]]] = {}
    previous = None
    for pair in merges:
        made = "".join(pair)
        if made in scores and made != previous:
            return scores, _problem(made, "its merges do not stand together")
        scores.setdefault(made, -float(len(scores)))
        pairs.setdefault(made, set()).add(pair)
        previous = made
    for token in tokens:
        if len(token) < 2:
            continue
        if not all(character in tokens for character in token):
            return scores, _problem(token, "it holds a character that is no token")
        splits = ((token[:index], token[index:]) for index in range(1, len(token)))
        if {pair for pair in splits if pair[0] in tokens and pair[1] in tokens} != pairs.get(token, set()):
            return scores, _problem(token, "two tokens that make it up have no merge")
    return scores, ""


def _problem(token: str, reason: str) -> str:
    return f"tokenizer.json: {token!r}: {reason}; sentencepiece in llama.cpp would split text differently"


def _special_tokens(
    settings: Mapping[str, Any], config: Mapping[str, Any], numbers: Mapping[str, int]
) -> dict[str, int]:
    """Numbers of the special tokens that tokenizer_config.json names, else config.json."""
    found = {}
    for name in _SPECIAL:
        stated = settings.get(f"{name}_token")
        text = stated.get("content") if isinstance(stated, Mapping) else stated
        number = numbers.get(text) if isinstance(text, str) else config.get(f"{name}_token_id")
        number = number[0] if isinstance(number, list) and number else number
        if isinstance(number, int) and number >= 0:
            found[name] = number
    return found


def _add_surroundings(keys: dict[str, Any], content: Mapping[str, Any], special: Mapping[str, str]) -> list[str]:
    """Which special tokens are put around a text, from the post-processor."""
    before, after, unknown = _surroundings(content.get("post_processor"))
    keys["tokenizer.ggml.add_bos_token"] = bool(before)
    if after:
        keys["tokenizer.ggml.add_eos_token"] = True
    begin, end = ([special.get(text) for text in texts] for texts in (before, after))
    known = begin in ([], ["bos"]) and end in ([], ["eos"])
    if known and not unknown:
        return []
    return [f"tokenizer.json: the post-processor puts {[*before, *after, *unknown]} around texts; known: bos and eos"]


def _surroundings(processor: Any) -> tuple[list[str], list[str], list[str]]:
    before: list[str] = []
    after: list[str] = []
    unknown: list[str] = []
    for step in (processor or {}).get("processors", [processor] if processor else []):
        if step["type"] == "TemplateProcessing":
            target = before
            for part in step["single"]:
                if "Sequence" in part:
                    target = after
                else:
                    target.append(part["SpecialToken"]["id"])
        elif step["type"] != "ByteLevel":
            unknown.append(step["type"])
    return before, after, unknown


def _odd_added_tokens(content: Mapping[str, Any]) -> list[str]:
    """Added tokens that take the spaces around them, or match whole words only: llama.cpp knows neither."""
    odd = [
        token["content"]
        for token in content.get("added_tokens", [])
        if token.get("lstrip") or token.get("rstrip") or token.get("single_word")
    ]
    return [f"tokenizer.json: added token {odd[0]!r} strips spaces or matches whole words only"] if odd else []


def _chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):
        template = next((entry.get("template") for entry in template if entry.get("name") == "default"), None)
    return template if isinstance(template, str) else None
