"""The next token: the likeliest one, or one drawn by temperature, top_p and penalties with a seed of its own."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_NOTABLE = (1 / 1024, 1 / 16384)  # of the sum of all; as many tokens have it at most, as a rule far fewer
_SHIFT = 16  # leaves the exponent of a float32 and 7 bits
_BLOCK = 512
_BELOW_ONE = 1 - 1e-9
_SAFE = 70.0  # float32 holds the exponentials of a large vocabulary up to here, and their sum
_COLDEST = 1e-30  # float32 has no much smaller numbers


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen.

    Attributes:
        temperature: 0 takes the likeliest token each time.
        seed: of the random numbers, not negative.
        top_p: only the likeliest tokens whose probabilities sum up to this are drawn from.
        presence_penalty: taken from the logit of every token that was chosen before.
        frequency_penalty: taken from it once for each time that it was chosen.
    """

    temperature: float = 0.0
    seed: int = 0
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0


class Sampler:
    """Chooses the tokens of one text, one after the other.

    Args:
        sampling: how.
    """

    def __init__(self, sampling: Sampling):
        self._sampling = sampling
        self._generator = np.random.default_rng(sampling.seed)
        self._chosen = Counter[int]()
        self._memory = np.empty(0, dtype=np.float32)

    def choose(self, logits: NDArray[np.float32]) -> int:
        """The next token by its logits, float32 `[vocabulary]`."""
        token = self._draw(self._penalized(logits))
        self._chosen[token] += 1
        return token

    def _penalized(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        presence, frequency = self._sampling.presence_penalty, self._sampling.frequency_penalty
        if not self._chosen or (presence == 0 and frequency == 0):
            return logits
        changed = logits.copy()
        tokens = np.fromiter(self._chosen, dtype=np.int64)
        changed[tokens] -= presence + frequency * np.fromiter(self._chosen.values(), dtype=np.float32)
        return changed

    def _draw(self, logits: NDArray[np.float32]) -> int:
        if self._sampling.temperature <= 0:
            return int(logits.argmax())
        weights = self._weights(logits)
        if self._sampling.top_p >= 1:
            return _pick(weights, self._generator.random())
        likeliest = nucleus(weights, self._sampling.top_p)
        sums = weights[likeliest].cumsum(dtype=np.float64)
        return int(likeliest[sums[:-1].searchsorted(self._generator.random() * sums[-1], side="right")])

    def _weights(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities but for a factor, in memory that is kept: new pages would cost more than the numbers."""
        if self._memory.shape != logits.shape:
            self._memory = np.empty_like(logits, dtype=np.float32)
        temperature, largest = np.float32(max(self._sampling.temperature, _COLDEST)), logits.max()
        if temperature == 1 and 0 <= largest <= _SAFE:
            return np.exp(logits, out=self._memory)
        weights = np.subtract(logits, largest, out=self._memory)
        with np.errstate(over="ignore"):  # a tiny temperature leaves the likeliest token alone
            weights /= temperature
        return np.exp(weights, out=weights)


def _pick(weights: NDArray[np.float32], number: float) -> int:
    """Index at which the sum of weights passes `number`, below 1, times the sum of all."""
    starts = np.arange(0, len(weights), _BLOCK)
    blocks = np.cumsum(np.add.reduceat(weights, starts).astype(np.float64))
    block = int(np.searchsorted(blocks, number * blocks[-1], side="right"))
    start, before = int(starts[block]), float(blocks[block - 1]) if block else 0.0
    inside = np.cumsum(weights[start : start + _BLOCK].astype(np.float64))
    part = (number * blocks[-1] - before) / (blocks[block] - before)
    return start + int(np.searchsorted(inside, min(part, _BELOW_ONE) * inside[-1], side="right"))


def nucleus(weights: NDArray[np.float32], top_p: float) -> NDArray[np.intp]:
    """Indices of the fewest largest weights that sum up to `top_p` of all; at least one.

    A vocabulary is not sorted, which would take longer than a small model needs for a token: the few notable weights
    are, or, where they are not enough, those that are as large as the smallest that is taken, within 1 %.

    Args:
        weights: not negative, `[vocabulary]`; their sum need not be 1.
        top_p: below 1.
    """
    total = float(weights.sum())
    enough = top_p * total
    for share in _NOTABLE:
        notable = (weights >= np.float32(share * total)).nonzero()[0]
        if float(weights[notable].sum()) >= enough:
            return _fewest(weights, notable, enough)
    kinds = weights.view(np.int32) >> _SHIFT  # the bits of numbers that are not negative grow with them
    sums = np.cumsum(np.bincount(kinds, weights=weights)[::-1])
    place = min(int(np.searchsorted(sums, enough)), len(sums) - 1)
    smallest = len(sums) - 1 - place
    above, among = np.flatnonzero(kinds > smallest), np.flatnonzero(kinds == smallest)
    return np.concatenate([above, _fewest(weights, among, enough - (float(sums[place - 1]) if place else 0.0))])


def _fewest(weights: NDArray[np.float32], among: NDArray[np.intp], enough: float) -> NDArray[np.intp]:
    """The fewest largest of some weights whose sum is enough, or all."""
    values = weights[among]
    order = (-values).argsort(kind="stable")
    return among[order[: int(values[order].cumsum(dtype=np.float64).searchsorted(enough)) + 1]]
