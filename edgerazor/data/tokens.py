"""Tokenized documents, and what a token's place in the text says about it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Tokens:
    """Documents one behind the other.

    Attributes:
        ids: int32 `[tokens]`.
        is_label: bool `[tokens]`: to be learned.
        text_bytes: int32 `[tokens]`: UTF-8 bytes of text that a token stands for; 0 for special tokens.
        lengths: int64 `[documents]`: tokens of each document.
    """

    ids: np.ndarray
    is_label: np.ndarray
    text_bytes: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, ids: np.ndarray, is_label: np.ndarray, text_bytes: np.ndarray) -> "Tokens":
        """A single document."""
        return cls(ids, is_label, text_bytes, np.array([len(ids)], dtype=np.int64))

    @classmethod
    def join(cls, parts: Iterable["Tokens"]) -> "Tokens":
        """All documents of `parts`, in order."""
        parts = list(parts)
        return cls(
            ids=_joined([part.ids for part in parts], np.int32),
            is_label=_joined([part.is_label for part in parts], np.bool_),
            text_bytes=_joined([part.text_bytes for part in parts], np.int32),
            lengths=_joined([part.lengths for part in parts], np.int64),
        )

    def head(self, length: int) -> "Tokens":
        """The first `length` tokens of a single document."""
        return Tokens.of(self.ids[:length], self.is_label[:length], self.text_bytes[:length])

    def without_labels(self) -> "Tokens":
        """The same tokens, none of them to be learned."""
        return replace(self, is_label=np.zeros_like(self.is_label))

    def with_end(self, end_id: int) -> "Tokens":
        """A single document, closed by the end-of-sequence token as a label, which is added unless it is there."""
        kept = len(self.ids) - int(len(self.ids) > 0 and self.ids[-1] == end_id)
        return Tokens.of(
            np.append(self.ids[:kept], np.int32(end_id)),
            np.append(self.is_label[:kept], True),
            np.append(self.text_bytes[:kept], np.int32(0)),
        )


def count_text_bytes(text: str, offsets: np.ndarray) -> np.ndarray:
    """UTF-8 bytes of `text` that each token adds to those before it, int32 `[tokens]`.

    A character that is spread over several tokens counts at the first one; white space that a tokenizer leaves out of
    its offsets counts at the next token. So the sum is the number of bytes up to the end of the last token.

    Args:
        text: what was tokenized.
        offsets: int64 `[tokens, 2]`: first character, and one past the last.
    """
    ends = np.maximum.accumulate(offsets[:, 1]) if len(offsets) else offsets[:, 1]
    starts = np.concatenate([[0], ends[:-1]])
    if text.isascii():
        return (ends - starts[: len(ends)]).astype(np.int32)
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    widths = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    bytes_before = np.concatenate([[0], np.cumsum(widths)])
    return (bytes_before[ends] - bytes_before[starts[: len(ends)]]).astype(np.int32)


def _joined(arrays: list[np.ndarray], dtype: Any) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype=dtype), *arrays]).astype(dtype, copy=False)
