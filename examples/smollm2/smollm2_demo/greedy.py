"""Whether two engines write the same greedy tokens; where they part, whether the two likeliest were nearly tied."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgerazor.core.contracts import Runtime


@dataclass(frozen=True)
class Written:
    """Greedy tokens, and the logits `[tokens, vocabulary]` that each was chosen from."""

    ids: list[int]
    logits: NDArray[np.float32]


@dataclass(frozen=True)
class Agreement:
    """Two engines on one prompt.

    Attributes:
        tokens: that were written and are equal, up to the first that is not.
        wanted: how many were to be written; fewer if the text ends.
        parted: they differ behind those.
        gap: there, the reference's logit of its own token above that of the other engine's token.
        rounding: the most by which the lead of the likeliest token over the second differs between the engines, at the
            equal tokens of all prompts.
        tie: the gap is at most that.
    """

    tokens: int
    wanted: int
    parted: bool = False
    gap: float = 0.0
    rounding: float = 0.0
    tie: bool = True


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


def compare(references: Sequence[Written], others: Sequence[Written]) -> list[Agreement]:
    """How far texts of two engines are the same, and what the first differences are worth."""
    texts = list(zip(references, others, strict=True))
    equal = [_equal_tokens(ours.ids, theirs.ids) for ours, theirs in texts]
    moved = max(_moved(ours.logits[:n], theirs.logits[:n]) for n, (ours, theirs) in zip(equal, texts, strict=True))
    return [_compare(ours, theirs, n, moved) for n, (ours, theirs) in zip(equal, texts, strict=True)]


def _compare(reference: Written, other: Written, equal: int, moved: float) -> Agreement:
    wanted = len(reference.ids)
    if equal == wanted:
        return Agreement(equal, wanted, rounding=moved)
    here = reference.logits[equal]
    gap = float(here[reference.ids[equal]] - here[other.ids[equal]])
    return Agreement(equal, wanted, True, gap, moved, gap <= moved)


def _equal_tokens(ours: list[int], theirs: list[int]) -> int:
    pairs = zip(ours, theirs, strict=False)
    return next((index for index, pair in enumerate(pairs) if pair[0] != pair[1]), len(ours))


def _moved(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """The largest change of the lead of the likeliest token over the second, between two engines."""
    if not len(ours):
        return 0.0
    rows, pair = np.arange(len(ours))[:, None], np.argsort(ours, -1)[:, -2:]
    leads = [np.diff(logits[rows, pair].astype(np.float64), axis=-1) for logits in (ours, theirs)]
    return float(np.abs(leads[0] - leads[1]).max())
