"""The next token: the likeliest one, or one drawn by temperature, top_p and penalties with a seed of its own."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_NOTABLE = (1 / 1024, 1 / 16384)  # of the sum of all; as many tokens have it at most, as a rule far fewer
_SHIFT = 16  # leaves the exponent of a float32 and 7 bits
_BLOCK = 512
_BELOW_ONE = 1 - 1e-9
_SAFE = 70.0  # float32 holds the exponentials of a large vocabulary up to here, and their sum
_COLD = 0.01  # above it, float32 holds what logits are divided to
_TRIES = 4
_NUMBERS = 64  # drawn at a time, since the call takes longer than a number
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
        self._numbers = _random_numbers(sampling.seed)
        self._chosen = Counter[int]()
        self._size, self._memory = 0, np.zeros(0, dtype=np.float32)

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
        """A token of the nucleus: drawn from all, and once more if it is not one of them.

        A token is likelier to be one of them than `top_p`, so the nucleus itself is seldom looked for. The
        probabilities are the same: those of all tokens, given that the token is one of them.
        """
        if self._sampling.temperature <= 0:
            return int(logits.argmax())
        weights, sums = self._weigh(logits)
        enough = self._sampling.top_p * sums[-1]
        for _ in range(_TRIES):
            token = _pick(weights, sums, next(self._numbers))
            if self._sampling.top_p >= 1 or _is_in_nucleus(weights, token, enough, sums[-1]):
                return token
        likeliest = nucleus(weights, self._sampling.top_p)
        inside = weights[likeliest].cumsum(dtype=np.float64)
        return int(likeliest[inside[:-1].searchsorted(next(self._numbers) * inside[-1], side="right")])

    def _weigh(self, logits: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Probabilities but for a factor, and sums of them up to the end of each block.

        In memory that is kept: new pages would cost more than the numbers.
        """
        if self._size != len(logits):
            self._size, count = len(logits), -(-len(logits) // _BLOCK)
            self._memory = np.zeros(count * _BLOCK, dtype=np.float32)
        weights, temperature = self._memory[: self._size], max(self._sampling.temperature, _COLDEST)
        largest = float(logits.max())
        if temperature >= _COLD and 0 <= largest <= _SAFE * temperature:
            np.exp(logits if temperature == 1 else np.divide(logits, np.float32(temperature), out=weights), out=weights)
        else:
            np.subtract(logits, np.float32(largest), out=weights)
            with np.errstate(over="ignore"):  # a tiny temperature leaves the likeliest token alone
                weights /= np.float32(temperature)
            np.exp(weights, out=weights)
        return weights, self._sums()

    def _sums(self) -> NDArray[np.float64]:
        sums: NDArray[np.float64] = self._memory.reshape(-1, _BLOCK).sum(axis=1).cumsum(dtype=np.float64)
        return sums


def _random_numbers(seed: int) -> Iterator[float]:
    """From 0 to below 1, without end."""
    generator = np.random.default_rng(seed)
    while True:
        yield from generator.random(_NUMBERS).tolist()


def _pick(weights: NDArray[np.float32], sums: NDArray[np.float64], number: float) -> int:
    """Index at which the sum of weights passes `number`, below 1, times the sum of all."""
    wanted = min(number, _BELOW_ONE) * sums[-1]
    block = int(sums.searchsorted(wanted, side="right"))
    before = sums[block - 1] if block else 0.0
    inside = weights[block * _BLOCK : (block + 1) * _BLOCK].cumsum(dtype=np.float64)
    part = min((wanted - before) / (sums[block] - before), _BELOW_ONE)
    return block * _BLOCK + int(inside.searchsorted(part * inside[-1], side="right"))


def _is_in_nucleus(weights: NDArray[np.float32], token: int, enough: float, total: float) -> bool:
    """Whether the weights that come before that of a token, the largest first, are together less than enough."""
    weight = weights[token]
    if total - weight < enough:  # whatever comes before it
        return True
    among = (weights >= weight).nonzero()[0]
    values = weights[among]
    before = values[(values > weight) | (among < token)].sum(dtype=np.float64)
    return bool(before < enough)


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
