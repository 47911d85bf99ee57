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
        rounding: the most by which the engines differ, at all other tokens of the reference's text, in the lead of the
            likeliest token over the second.
    """

    tokens: int
    wanted: int
    gap: float = 0.0
    rounding: float = 0.0

    @property
    def tie(self) -> bool:
        """They never part, or where they do, the gap is one that the other engine's rounding bridges elsewhere too."""
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


def compare(reference: Written, other: Written) -> Agreement:
    """How far the other engine writes the reference's text, which it has read along."""
    ours, theirs = reference.logits.astype(np.float64), other.logits.astype(np.float64)
    wanted, chosen = len(reference.ids), theirs.argmax(-1)
    parted = np.flatnonzero(chosen != reference.ids)
    at = int(parted[0]) if len(parted) else wanted
    rows, pair = np.arange(wanted)[:, None], np.argsort(ours, -1)[:, -2:]
    moved = np.abs(np.diff(ours[rows, pair]) - np.diff(theirs[rows, pair]))[:, 0]
    gap = 0.0 if at == wanted else float(ours[at, reference.ids[at]] - ours[at, chosen[at]])
    return Agreement(at, wanted, gap, float(np.delete(moved, at if at < wanted else []).max(initial=0.0)))
