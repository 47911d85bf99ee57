"""Sampling with a seed per text: what is written beside it changes nothing."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor, TopPLogitsWarper

from edgerazor.schemas.synthesis import SynthesisSettings


class TokenSampler:
    """Chooses the next token by a random number.

    The token is the one with which the sum of the probabilities, after temperature, top_k and top_p and in the order of
    the vocabulary, passes the number.

    Args:
        settings: top_k and top_p.
    """

    def __init__(self, settings: SynthesisSettings):
        self._top_k = settings.top_k
        self._top_p = TopPLogitsWarper(settings.top_p) if settings.top_p < 1 else None

    def choose(self, scores: Tensor, numbers: Tensor, temperatures: Tensor) -> Tensor:
        """Tokens, int64 `[rows]`.

        Args:
            scores: logits `[rows, vocabulary]`.
            numbers: below 1, float64 `[rows]`.
            temperatures: float32 `[rows]`; 0 takes the likeliest token, whatever the number.
        """
        greedy, likeliest = temperatures == 0, scores.argmax(-1)
        if bool(greedy.all()):
            return likeliest
        # So that a tiny temperature divides nothing to infinity.
        scores, ids = scores.float() - scores.float().amax(-1, keepdim=True), None
        if 0 < self._top_k < scores.shape[-1]:
            # Of what is left, sorting for top_p is a small part of the work that it is for a whole vocabulary.
            ids = scores.topk(self._top_k, sorted=False).indices.sort(-1).values
            scores = scores.gather(-1, ids)
        scores = scores / temperatures.masked_fill(greedy, 1.0)[:, None]
        if self._top_p is not None:
            scores = self._top_p(None, scores)
        sums = scores.double().softmax(-1).cumsum(-1)
        chosen = torch.searchsorted(sums, numbers[:, None] * sums[:, -1:], right=True)
        drawn = (chosen if ids is None else ids.gather(-1, chosen))[:, 0]
        return torch.where(greedy, likeliest, drawn)


def random_numbers(seed: int, count: int) -> Tensor:
    """One number below 1 for each token of a text, float64 `[count]`; the same for a seed, however many are asked."""
    # float32 numbers are at most 1 - 2^-24, so that in float64 none reaches the whole sum.
    return torch.rand(count, generator=torch.Generator().manual_seed(seed)).double()


class RowSampling(LogitsProcessor):
    """Leave only the token possible that a `TokenSampler` chooses; `generate` then runs greedily.

    Args:
        numbers: float64 `[rows, steps]`: of each row, one a step.
        temperatures: float32 `[rows]`.
        prompt_length: tokens in front of the first new one, padding included.
        sampler: chooses.
    """

    def __init__(self, numbers: Tensor, temperatures: Tensor, prompt_length: int, sampler: TokenSampler):
        self._numbers, self._temperatures = numbers, temperatures
        self._prompt_length, self._sampler = prompt_length, sampler

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores `[rows, vocabulary]`: 0 for the token that was drawn, minus infinity for the others."""
        numbers = self._numbers[:, input_ids.shape[1] - self._prompt_length]
        chosen = self._sampler.choose(scores, numbers, self._temperatures)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)


def numbers_of(seeds: Sequence[int], count: int) -> Tensor:
    """float64 `[seeds, count]`."""
    return torch.stack([random_numbers(seed, count) for seed in seeds])
