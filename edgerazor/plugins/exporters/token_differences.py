"""Texts in which an engine finds other tokens than the checkpoint's tokenizer, told in one line."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

_SHOWN = 60


def describe_differences(
    engine: str, reference: Any, texts: Sequence[str], found: Iterable[Sequence[int]], name: Callable[[int], str | None]
) -> tuple[int, str]:
    """How many texts have other tokens, and what differs in the shortest of them (empty if none does).

    Args:
        engine: what it is called in the line.
        reference: the checkpoint's tokenizer, of transformers.
        texts: what both encode.
        found: token ids of each text in the engine.
        name: text of a token by its number.
    """
    different: list[tuple[str, list[int], list[int]]] = []
    for text, ids, theirs in zip(texts, reference(list(texts))["input_ids"], found, strict=True):
        if list(ids) != list(theirs):
            different.append((text, list(ids), list(theirs)))
    if not different:
        return 0, ""
    text, ids, theirs = min(different, key=lambda entry: len(entry[0]))
    pairs = zip([*ids, -1], [*theirs, -1], strict=False)
    position = next(index for index, (own, other) in enumerate(pairs) if own != other)

    def token(numbers: list[int]) -> str:
        return f"{numbers[position]} {name(numbers[position])!r}" if position < len(numbers) else "no more"

    shown = repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
    return len(different), (
        f"{engine} finds other tokens in {len(different)} of {len(texts)} texts; in {shown} token {position} "
        f"is {token(ids)} in the tokenizer and {token(theirs)} in {engine}"
    )
