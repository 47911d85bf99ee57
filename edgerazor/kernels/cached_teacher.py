"""A teacher of which only the likeliest tokens are known, and how much probability all others have together.

A divergence then compares k + 1 outcomes per position: the k tokens, and "another one". That is what the full formula
gives for a teacher that shares out its remaining probability as the student does, so such a row of logits is made, and
every kernel for full rows serves. By the data-processing inequality the value is at most that of the full divergence.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class TopTokens(NamedTuple):
    """What is kept of the teacher's distribution at N positions.

    Attributes:
        ids: int64 or int32 `[N, k]`, distinct in every row.
        log_probabilities: `[N, k]`, at temperature 1.
        log_rest: float32 `[N, temperatures]`, log of the probability of all other tokens at each temperature; -inf
            where there is none.
        entropy: float32 `[N]`, nats, of the whole distribution.
        label_log_probability: float32 `[N]`.
    """

    ids: Tensor
    log_probabilities: Tensor
    log_rest: Tensor
    entropy: Tensor
    label_log_probability: Tensor


class CachedTeacherLogits:
    """Stands where `TeacherLogits` does: rows of teacher logits, completed by the student's.

    Args:
        tokens: of the rows that are compared.
        temperatures: which column of `log_rest` belongs to which temperature.
        chunk: rows per chunk.
    """

    def __init__(self, tokens: TopTokens, temperatures: tuple[float, ...], chunk: int):
        self.tokens, self.temperatures, self.chunk = tokens, temperatures, chunk

    def rows(self, rows: slice, z: Tensor, temperature: float) -> Tensor:
        """Teacher logits `[n, V]` whose softmax at `temperature` has the kept probabilities.

        Args:
            z: the student's logits of these rows, float32; no gradient flows through what is made of them.
            temperature: one of `temperatures`.
        """
        z = z.detach()
        ids = self.tokens.ids[rows].long()
        log_rest = self.tokens.log_rest[rows, self.temperatures.index(temperature)].to(z.dtype).unsqueeze(-1)
        kept = self.tokens.log_probabilities[rows].to(z.dtype).div(temperature).log_softmax(dim=-1)
        kept += torch.log1p(-log_rest.exp())
        others = (z / temperature).scatter(-1, ids, float("-inf"))
        others = functional.log_softmax(others, dim=-1) + log_rest
        return others.scatter(-1, ids, kept).mul_(temperature)


@torch.no_grad()
def top_tokens(u: Tensor, labels: Tensor, k: int, temperatures: tuple[float, ...]) -> TopTokens:
    """Keep the `k` likeliest tokens of rows of teacher logits.

    Args:
        u: float32 `[N, V]`.
        labels: int64 `[N]`; negative where there is none.
        k: at most V.
        temperatures: of the losses that will read the result.
    """
    log_p = u.log_softmax(dim=-1)
    log_probabilities, ids = log_p.topk(k, dim=-1)
    entropy = -(log_p.exp() * log_p).sum(dim=-1)
    label = log_p.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1).where(labels >= 0, 0.0)
    rests = []
    for temperature in temperatures:
        # Summed over the others, not as 1 minus the kept: small remainders keep their digits.
        others = (u / temperature).log_softmax(dim=-1).scatter(-1, ids, float("-inf"))
        rests.append(others.logsumexp(dim=-1))
    return TopTokens(ids.to(torch.int32), log_probabilities, torch.stack(rests, dim=-1), entropy, label)
