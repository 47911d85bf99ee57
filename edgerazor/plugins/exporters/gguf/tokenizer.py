"""The tokenizer as keys of the format, from the checkpoint's own tokenizer.json.

A wrong pre-tokenizer or a missing merge loads and splits text differently without a word, so what is not recognized is
refused.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgerazor.errors import ExportError
from edgerazor.plugins.exporters.common import TOKENIZER, TOKENIZER_CONFIG, read_json
from edgerazor.plugins.exporters.gguf.special_tokens import special_ids, special_keys, surrounding_keys, template_keys
from edgerazor.plugins.exporters.gguf.splitting import NAMES, Splitting, recognize_splitting, split_pair
from edgerazor.plugins.exporters.token_ids import stop_ids, token_numbers

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


@dataclass(frozen=True)
class TokenizerKeys:
    """What the file will say.

    Attributes:
        keys: for the file.
        problems: a line for everything that cannot be expressed.
        notes: for the report.
        choices: names for `tokenizer.ggml.pre`, the one in the keys first.
        composes: the tokenizer composes characters (NFC) first; llama.cpp never does.
    """

    keys: dict[str, Any]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    composes: bool = False


def describe_tokenizer(folder: Path, config: Mapping[str, Any], rows: int) -> TokenizerKeys:
    """Tokens, types, merges or scores, special tokens and chat templates.

    Args:
        folder: of the checkpoint.
        config: its config.json, for special tokens that the tokenizer does not name.
        rows: of the embedding; the token list is filled up to it.
    """
    try:
        if not (folder / TOKENIZER).exists():
            return TokenizerKeys({}, ("tokenizer.json is missing in the checkpoint; a GGUF needs the tokenizer",))
        content = read_json(folder / TOKENIZER)
        settings = read_json(folder / TOKENIZER_CONFIG, optional=True)
        return _describe(folder, content, settings, config, rows)
    except ExportError as error:
        return TokenizerKeys({}, (str(error),))
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        return TokenizerKeys({}, (f"tokenizer.json: is not what a tokenizer saves: {type(error).__name__}: {error}",))


def _describe(
    folder: Path, content: Mapping[str, Any], settings: Mapping[str, Any], config: Mapping[str, Any], rows: int
) -> TokenizerKeys:
    splitting = recognize_splitting(content)
    if splitting is None:
        return TokenizerKeys({}, (f"this pre-tokenizer is unknown to the exporter; known: {', '.join(NAMES)}",))
    content, dropped = _within(content, rows)
    numbers = token_numbers(content)
    highest = max(numbers.values(), default=-1)
    if highest >= rows:
        return TokenizerKeys({}, (f"tokenizer.json: numbers tokens up to {highest}, the embedding has {rows} rows",))
    tokens, types = _tokens(content, splitting, rows)
    keys: dict[str, Any] = {
        "tokenizer.ggml.model": splitting.model,
        "tokenizer.ggml.pre": splitting.choices[0],
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
    }
    problems = _add_merges(keys, content, splitting, tokens, types)
    special, stops = special_ids(settings, config, numbers, rows), stop_ids(folder, rows)
    controls = [number for number, kind in enumerate(types) if kind == CONTROL]
    keys |= special_keys(special, stops, tokens, controls)
    around, surrounding = surrounding_keys(
        content, {tokens[number]: name for name, number in reversed(special.items())}
    )
    keys |= {**around, **template_keys(folder, settings)}
    problems += surrounding + _odd_added_tokens(content)
    notes = [*splitting.notes]
    if dropped:
        notes.append(f"special tokens without a row in the embedding are left out: {', '.join(dropped)}")
    if not stops:
        notes.append("the tokenizer names no end-of-text token; llama.cpp then takes one of its own")
    return TokenizerKeys(keys, tuple(problems), tuple(notes), splitting.choices, splitting.composes)


def _within(content: Mapping[str, Any], rows: int) -> tuple[Mapping[str, Any], list[str]]:
    """The content without special tokens that no row of the embedding stands for, and their texts."""
    added = content.get("added_tokens", [])
    outside = [token["content"] for token in added if token["id"] >= rows and token.get("special")]
    if not outside:
        return content, []
    return {**content, "added_tokens": [token for token in added if token["content"] not in outside]}, outside


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
    merges = list(map(split_pair, content["model"]["merges"]))
    if splitting.model == "gpt2":
        keys["tokenizer.ggml.merges"] = [" ".join(pair) for pair in merges]
        return [] if merges else ["tokenizer.json: has no merges; llama.cpp reads no such tokenizer"]
    made = {"".join(pair) for pair in merges}
    kinds = dict(zip(tokens, types, strict=True))
    joined = {text for text, kind in kinds.items() if kind == NORMAL or (kind == USER_DEFINED and text in made)}
    scores, problem = token_scores(joined, merges)
    keys["tokenizer.ggml.scores"] = [scores.get(text, 0.0) if text in joined else 0.0 for text in tokens]
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


def _odd_added_tokens(content: Mapping[str, Any]) -> list[str]:
    """Added tokens that take the spaces around them, or match whole words only: llama.cpp knows neither."""
    odd = [
        token["content"]
        for token in content.get("added_tokens", [])
        if token.get("lstrip") or token.get("rstrip") or token.get("single_word")
    ]
    return [f"tokenizer.json: added token {odd[0]!r} strips spaces or matches whole words only"] if odd else []
