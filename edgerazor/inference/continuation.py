"""New tokens one at a time, and their text as soon as its characters are whole."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from edgerazor.inference.sampling import Sampler, Sampling

_INCOMPLETE = "\ufffd"
_DECODED_AGAIN = 16  # tokens: the call takes far longer than a few of them


class Continuation:
    """Iterating computes and chooses one token after the other.

    Args:
        feed: reads tokens after those before; logits, float32 `[1, vocabulary]`, of the last.
        ids: tokens that were not fed yet, at least one.
        sampling: how tokens are chosen.
        stop_ids: tokens that end the text; they are not yielded.
        most: at most this many new tokens.

    Attributes:
        ended: a token that ends the text was chosen.
        logits: float32 `[vocabulary]`, of which the last token was chosen.
    """

    logits: NDArray[np.float32]

    def __init__(
        self,
        feed: Callable[[Sequence[int]], NDArray[np.float32]],
        ids: Sequence[int],
        sampling: Sampling,
        *,
        stop_ids: frozenset[int],
        most: int,
    ):
        self.ended = False
        self._feed, self._ids, self._sampler = feed, ids, Sampler(sampling)
        self._stop_ids, self._most = stop_ids, most

    def __iter__(self) -> Iterator[int]:
        pending = self._ids
        for _ in range(self._most):
            self.logits = self._feed(pending)[0]
            token = self._sampler.choose(self.logits)
            if token in self._stop_ids:
                self.ended = True
                return
            yield token
            pending = [token]


class TextStream:
    """Text of tokens that arrive one by one, each piece in time that does not grow with the text.

    A few tokens before the new ones are decoded again, since what a token stands for depends on its neighbours.

    Args:
        decode: text of tokens; bytes that are no whole character yet end in U+FFFD.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]):
        self._decode = decode
        self._ids: list[int] = []
        self._shown = 0  # of self._ids: their text was given out
        self._before = ""  # text of these

    def add(self, token: int) -> str:
        """Text that is new with this token; empty while a character is incomplete."""
        self._ids.append(token)
        text = self._decode(self._ids)
        if text.endswith(_INCOMPLETE) or len(text) <= len(self._before):
            return ""
        new = text[len(self._before) :]
        if len(self._ids) > _DECODED_AGAIN:
            del self._ids[: self._shown]
            text = self._decode(self._ids)
        self._shown, self._before = len(self._ids), text
        return new

    def finish(self) -> str:
        """What is left at the end, incomplete characters as U+FFFD."""
        left = self._decode(self._ids)[len(self._before) :]
        self._ids, self._shown, self._before = [], 0, ""
        return left
