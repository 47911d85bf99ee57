"""Whether two engines write the same greedy tokens; where they part, whether the two likeliest were nearly tied."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgerazor.core.contracts import Runtime


@dataclass(frozen=True)
class Written:
    """Tokens behind a prompt, and the logits `[tokens, vocabulary]` that an engine had for each."""

    ids: list[int]
    logits: NDArray[np.float32]


@dataclass(frozen=True)
class Agreement:
    """Two engines on one prompt.

    Attributes:
        tokens: that both write, up to the first that differs.
        wanted: that the reference wrote.
        gap: where they part, the reference's logit of its own token above that of the other engine's.
        rounding: the most by which the other engine, or the reference with the other's rounding, moves the lead of the
            likeliest token over the second, at all other tokens of the text.
        rounded_gap: the gap in the reference with the other's rounding; None where it was not tried.
    """

    tokens: int
    wanted: int
    gap: float = 0.0
    rounding: float = 0.0
    rounded_gap: float | None = None

    @property
    def tie(self) -> bool:
        """They never part, or where they do, the gap is one that such rounding bridges elsewhere too."""
        return self.tokens == self.wanted or self.gap <= self.rounding


def write_greedily(runtime: Runtime, prompt: str, tokens: int) -> Written:
    """The likeliest tokens behind a user's message, up to one that ends the text."""
    runtime.restart()
    pending, ids, logits = runtime.encode(prompt), list[int](), []
    while len(ids) < tokens:
        logits.append(runtime.feed(pending)[0])
        ids.append(int(logits[-1].argmax()))
        if ids[-1] in runtime.stop_ids:
            break
        pending = [ids[-1]]
    return Written(ids, np.stack(logits))


def read_along(runtime: Runtime, prompt: str, ids: list[int]) -> Written:
    """What another engine has for each of these tokens, given those before: what it writes until it parts from them."""
    runtime.restart()
    logits = [runtime.feed(pending)[0] for pending in (runtime.encode(prompt), *([token] for token in ids[:-1]))]
    return Written(ids, np.stack(logits))


def compare(reference: Written, other: Written, rounded: Written | None = None) -> Agreement:
    """How far another engine writes the reference's text, which it has read along.

    Args:
        rounded: the reference itself, with the rounding that the other engine is known to do.
    """
    wanted, chosen = len(reference.ids), other.logits.argmax(-1)
    parted = np.flatnonzero(chosen != reference.ids)
    at = int(parted[0]) if len(parted) else wanted
    moved = np.stack([_moves(reference, text) for text in (other, rounded) if text is not None])
    rounding = float(np.delete(moved, at if at < wanted else [], axis=1).max(initial=0.0))
    if at == wanted:
        return Agreement(at, wanted, rounding=rounding)
    own, others = reference.ids[at], int(chosen[at])

    def gap(text: Written) -> float:
        return float(text.logits[at, own] - text.logits[at, others])

    return Agreement(at, wanted, gap(reference), rounding, gap(rounded) if rounded is not None else None)


def _moves(reference: Written, other: Written) -> NDArray[np.float64]:
    """By how much the lead of the reference's likeliest token over its second differs, `[tokens]`."""
    ours, theirs = reference.logits.astype(np.float64), other.logits.astype(np.float64)
    rows, pair = np.arange(len(ours))[:, None], np.argsort(ours, -1)[:, -2:]
    return np.abs(np.diff(ours[rows, pair]) - np.diff(theirs[rows, pair]))[:, 0]
