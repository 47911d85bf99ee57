"""Sampling with a seed per text: what is written beside it changes nothing."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor, TemperatureLogitsWarper, TopPLogitsWarper

from edgerazor.schemas.synthesis import SynthesisSettings


class TokenSampler:
    """Chooses the next token by a random number.

    The token is the one with which the sum of the probabilities, after temperature, top_k and top_p and in the order of
    the vocabulary, passes the number.

    Args:
        settings: temperature 0 takes the likeliest token, whatever the number.
    """

    def __init__(self, settings: SynthesisSettings):
        self._top_k, self._warpers = settings.top_k, list[LogitsProcessor]()
        if settings.temperature > 0:
            self._warpers.append(TemperatureLogitsWarper(settings.temperature))
        if settings.top_p < 1:
            self._warpers.append(TopPLogitsWarper(settings.top_p))
        self._greedy = settings.temperature == 0

    def choose(self, scores: Tensor, numbers: Tensor) -> Tensor:
        """Tokens, int64 `[rows]`, by logits `[rows, vocabulary]` and numbers below 1, float64 `[rows]`."""
        if self._greedy:
            return scores.argmax(-1)
        # So that a tiny temperature divides nothing to infinity.
        scores, ids = scores.float() - scores.float().amax(-1, keepdim=True), None
        if 0 < self._top_k < scores.shape[-1]:
            # Of what is left, sorting for top_p is a small part of the work that it is for a whole vocabulary.
            ids = scores.topk(self._top_k, sorted=False).indices.sort(-1).values
            scores = scores.gather(-1, ids)
        for warper in self._warpers:
            scores = warper(None, scores)
        sums = scores.double().softmax(-1).cumsum(-1)
        chosen = torch.searchsorted(sums, numbers[:, None] * sums[:, -1:], right=True)
        return (chosen if ids is None else ids.gather(-1, chosen))[:, 0]


def random_numbers(seed: int, count: int) -> Tensor:
    """One number below 1 for each token of a text, float64 `[count]`; the same for a seed, however many are asked."""
    # float32 numbers are at most 1 - 2^-24, so that in float64 none reaches the whole sum.
    return torch.rand(count, generator=torch.Generator().manual_seed(seed)).double()


class RowSampling(LogitsProcessor):
    """Leave only the token possible that a `TokenSampler` chooses; `generate` then runs greedily.

    Args:
        numbers: float64 `[rows, steps]`: of each row, one a step.
        prompt_length: tokens in front of the first new one, padding included.
        sampler: chooses.
    """

    def __init__(self, numbers: Tensor, prompt_length: int, sampler: TokenSampler):
        self._numbers, self._prompt_length, self._sampler = numbers, prompt_length, sampler

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores `[rows, vocabulary]`: 0 for the token that was drawn, minus infinity for the others."""
        chosen = self._sampler.choose(scores, self._numbers[:, input_ids.shape[1] - self._prompt_length])
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)


def numbers_of(seeds: Sequence[int], count: int) -> Tensor:
    """float64 `[seeds, count]`."""
    return torch.stack([random_numbers(seed, count) for seed in seeds])
