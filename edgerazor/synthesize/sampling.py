"""Sampling with a seed per row: what shares the batch changes nothing."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from edgerazor.schemas.synthesis import SynthesisSettings


class RowSampling(LogitsProcessor):
    """Choose the next token of each row by a random number of its own, and leave only that token possible.

    `generate` then runs greedily. The number of step t is the t-th of the row's generator; the token is the one with
    which the sum of the probabilities, after temperature, top_k and top_p, passes it.

    Args:
        seeds: one per row.
        prompt_length: tokens in front of the first new one, padding included.
        settings: the temperature is above 0.
        device: of the model.
    """

    def __init__(self, seeds: Sequence[int], prompt_length: int, settings: SynthesisSettings, device: torch.device):
        # float32 numbers are at most 1 - 2^-24, so that in float64 none reaches the whole sum.
        numbers = [torch.rand(settings.max_new_tokens, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        self._numbers = torch.stack(numbers).double().to(device)
        self._prompt_length = prompt_length
        self._warpers: list[LogitsProcessor] = [TemperatureLogitsWarper(settings.temperature)]
        if settings.top_k:
            self._warpers.append(TopKLogitsWarper(settings.top_k))
        if settings.top_p < 1:
            self._warpers.append(TopPLogitsWarper(settings.top_p))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores `[rows, vocabulary]`: 0 for the token that was drawn, minus infinity for the others."""
        scores = scores.float() - scores.amax(
            -1, keepdim=True
        )  # so that a tiny temperature divides nothing to infinity
        for warper in self._warpers:
            scores = warper(input_ids, scores)
        sums = scores.double().softmax(-1).cumsum(-1)
        number = self._numbers[:, input_ids.shape[1] - self._prompt_length, None] * sums[:, -1:]
        chosen = torch.searchsorted(sums, number, right=True)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen, 0.0)
