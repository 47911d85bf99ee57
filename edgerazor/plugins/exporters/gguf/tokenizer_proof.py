"""Proof that llama.cpp finds the tokens that the checkpoint's tokenizer finds, where llama.cpp is installed."""

import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerazor.errors import CheckpointError, ExportError
from edgerazor.models.tokenizer import load_tokenizer
from edgerazor.plugins.exporters.gguf.special_tokens import EOS, STOP_IDS
from edgerazor.plugins.exporters.gguf.tokenizer import CONTROL, USER_DEFINED, TokenizerKeys
from edgerazor.plugins.exporters.probe_texts import probe_texts
from edgerazor.plugins.exporters.token_differences import describe_differences

if TYPE_CHECKING:
    from edgerazor.plugins.exporters.gguf.llama_vocabulary import LlamaVocabulary

_PRE = "tokenizer.ggml.pre"
_UNPROVED = "llama.cpp is not installed, so that it finds the same tokens is not proved"
_HINT = "; set tokenizer_differences to note to export it with this one all the same"
_MOST_SPECIAL = 40


def prove_tokenizer(folder: Path, described: TokenizerKeys, *, tolerant: bool) -> TokenizerKeys:
    """The pre-tokenizer with which llama.cpp finds the same ids, or one that differs least and the first difference.

    Args:
        folder: of the checkpoint, with its tokenizer.
        described: what the file would say.
        tolerant: a difference is a note; else it is a problem.
    """
    try:
        from edgerazor.plugins.exporters.gguf.llama_vocabulary import open_vocabulary
    except ImportError:
        return replace(described, notes=(*described.notes, _UNPROVED))
    try:
        reference = load_tokenizer(folder)
    except CheckpointError as error:
        return replace(described, problems=(*described.problems, str(error)))
    closest: tuple[int, str, TokenizerKeys] | None = None
    for choice in described.choices:
        keys = {**described.keys, _PRE: choice}
        try:
            with open_vocabulary(keys) as vocabulary:
                count, difference = _difference(vocabulary, reference, keys, composes=described.composes)
                notes = (*described.notes, *([difference] if count else []), *_stop_notes(vocabulary, keys))
        except ExportError:
            continue
        if closest is None or count < closest[0]:
            closest = count, difference, replace(described, keys=keys, notes=notes)
        if not count:
            break
    if closest is None:
        names = " or ".join(f"'{choice}'" for choice in described.choices)
        problem = f"this llama.cpp cannot load the tokenizer (pre-tokenizer {names})"
        return replace(described, problems=(*described.problems, problem))
    count, difference, proved = closest
    if count and not tolerant:
        return replace(described, problems=(*described.problems, difference + _HINT))
    return proved


def _difference(
    vocabulary: "LlamaVocabulary", reference: Any, keys: dict[str, Any], *, composes: bool
) -> tuple[int, str]:
    """How many texts have other tokens, and what differs in the shortest of them."""
    texts = [*probe_texts(), *_special_texts(keys)]
    if composes:
        texts = [unicodedata.normalize("NFC", text) for text in texts]
    tokens = keys["tokenizer.ggml.tokens"]
    count, difference = describe_differences(
        "llama.cpp", reference, texts, map(vocabulary.encode, texts), tokens.__getitem__
    )
    return count, difference and f"{difference} (pre-tokenizer '{keys[_PRE]}')"


def _special_texts(keys: dict[str, Any]) -> Iterator[str]:
    """Added tokens inside text, beside each other, and with spaces and lines around them."""
    tokens, kinds = keys["tokenizer.ggml.tokens"], enumerate(keys["tokenizer.ggml.token_type"])
    added = [number for number, kind in kinds if kind in (CONTROL, USER_DEFINED)]
    if len(added) > _MOST_SPECIAL:
        added = added[: _MOST_SPECIAL // 2] + added[-_MOST_SPECIAL // 2 :]
    for number in added:
        text = tokens[number]
        yield from (f"a{text}b", f"a{text}{text}b", f"a {text} x\n{text}\nb", f"{text}a", f"{text} a", f"{text}\na")
        yield f"Hi{text}\n{tokens[added[0]]}user\nHi 1!"


def _stop_notes(vocabulary: "LlamaVocabulary", keys: dict[str, Any]) -> list[str]:
    """Where llama.cpp's own programs stop, if not at the tokens that end a text by the checkpoint."""
    tokens, wanted = keys["tokenizer.ggml.tokens"], set(keys.get(STOP_IDS, ())) or {keys.get(EOS)} - {None}
    stops = vocabulary.stop_ids()
    notes = []
    for numbers, said in ((wanted - stops, "do not stop at"), (stops - wanted if wanted else set(), "stop also at")):
        if numbers:
            named = ", ".join(f"{number} {tokens[number]!r}" for number in sorted(numbers))
            notes.append(f"llama.cpp's own programs {said} {named}; `edgerazor generate` keeps to the checkpoint")
    return notes
