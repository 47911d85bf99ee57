"""The next token: the likeliest one, or one drawn by temperature, top_p and penalties with a seed of its own."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_FIRST_CANDIDATES = 256
_BLOCK = 512
_BELOW_ONE = 1 - 1e-9
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
        return int(likeliest[_pick(weights[likeliest], self._generator.random())])

    def _weights(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities but for a factor, in memory that is kept: new pages would cost more than the numbers."""
        if self._memory.shape != logits.shape:
            self._memory = np.empty_like(logits, dtype=np.float32)
        weights = np.subtract(logits, logits.max(), out=self._memory)
        with np.errstate(over="ignore"):  # a tiny temperature leaves the likeliest token alone
            weights /= np.float32(max(self._sampling.temperature, _COLDEST))
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
    """Indices of the fewest largest weights that sum up to `top_p` of all, the largest first; at least one.

    Args:
        weights: not negative, `[vocabulary]`; their sum need not be 1.
        top_p: below 1.
    """
    count, enough = _FIRST_CANDIDATES, top_p * float(weights.sum(dtype=np.float64))
    while True:
        # Sorting a whole vocabulary would take longer than a small model needs for a token.
        count = min(count, len(weights))
        candidates = np.argpartition(weights, len(weights) - count)[len(weights) - count :]
        candidates = candidates[np.argsort(-weights[candidates], kind="stable")]
        sums = np.cumsum(weights[candidates].astype(np.float64))
        if sums[-1] >= enough or count == len(weights):
            return candidates[: int(np.searchsorted(sums, enough)) + 1]
        count *= 8
