"""Tokens at the edges of what is learned: which ones lie inside, and those that reach across the beginning."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Span = tuple[int, int]


def token_starts(offsets: np.ndarray) -> np.ndarray:
    """First character of each token, int64 `[tokens]`; white space that offsets leave out belongs to the next token.

    Args:
        offsets: int64 `[tokens, 2]`: first character, and one past the last, as the tokenizer has them.
    """
    ends = np.maximum.accumulate(offsets[:, 1]) if len(offsets) else offsets[:, 1]
    return np.minimum(offsets[:, 0], np.concatenate([[0], ends[:-1]])[: len(ends)])


def overlaps(offsets: np.ndarray, spans: Sequence[Span]) -> np.ndarray:
    """Bool `[tokens]`: the token holds a character of one of the `spans` (first character, one past the last)."""
    starts = token_starts(offsets)
    result = np.zeros(len(offsets), dtype=np.bool_)
    for start, end in spans:
        result |= (starts < end) & (offsets[:, 1] > start)
    return result


def split_at_starts(
    tokenizer: Any, text: str, ids: np.ndarray, offsets: np.ndarray, spans: Sequence[Span]
) -> tuple[np.ndarray, np.ndarray]:
    """Ids and offsets in which no token reaches across the beginning of a span, if the tokenizer can write it so.

    When the model answers, the tokens of the prompt are there already: a line break of the prompt and the blanks that
    an answer begins with are never one token then.

    Args:
        ids: int32 `[tokens]`.
        offsets: int64 `[tokens, 2]`.
    """
    for start, _ in spans:
        starts = token_starts(offsets)
        for index in np.flatnonzero((starts < start) & (start < offsets[:, 1]))[::-1].tolist():
            place, end = int(starts[index]), int(offsets[index, 1])
            left, left_offsets = _encoded(tokenizer, text[place:start], place)
            right, right_offsets = _encoded(tokenizer, text[start:end], start)
            before = ids[:index].tolist()
            if tokenizer.decode([*before, *left, *right]) == tokenizer.decode([*before, int(ids[index])]):
                ids = np.concatenate([ids[:index], left, right, ids[index + 1 :]]).astype(ids.dtype)
                offsets = np.concatenate([offsets[:index], left_offsets, right_offsets, offsets[index + 1 :]])
    return ids, offsets


def _encoded(tokenizer: Any, text: str, place: int) -> tuple[list[int], np.ndarray]:
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = np.array(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2) + place
    return list(encoded["input_ids"]), offsets
