"""The next token: the likeliest one, or one drawn by temperature, top_p and penalties with a seed of its own."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_FIRST_CANDIDATES = 256


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
        with np.errstate(over="ignore"):  # a tiny temperature leaves the likeliest token alone
            scaled = (logits - logits.max()).astype(np.float64) / self._sampling.temperature
        weights = np.exp(scaled)
        weights /= weights.sum()
        if self._sampling.top_p >= 1:
            return int(self._generator.choice(len(weights), p=weights))
        likeliest = nucleus(weights, self._sampling.top_p)
        kept = weights[likeliest]
        return int(self._generator.choice(likeliest, p=kept / kept.sum()))


def nucleus(weights: NDArray[np.float64], top_p: float) -> NDArray[np.intp]:
    """Indices of the fewest largest weights that sum up to `top_p`, the largest first; at least one.

    Args:
        weights: probabilities `[vocabulary]`.
        top_p: below 1.
    """
    count = _FIRST_CANDIDATES
    while True:
        # Sorting a whole vocabulary would take longer than a small model needs for a token.
        count = min(count, len(weights))
        candidates = np.argpartition(weights, len(weights) - count)[len(weights) - count :]
        candidates = candidates[np.argsort(-weights[candidates], kind="stable")]
        sums = np.cumsum(weights[candidates])
        if sums[-1] >= top_p or count == len(weights):
            return candidates[: int(np.searchsorted(sums, top_p)) + 1]
        count *= 8
