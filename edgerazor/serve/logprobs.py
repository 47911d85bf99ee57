"""How likely tokens are, as /v1/completions tells it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgerazor.core.contracts import Runtime
from edgerazor.errors import ExportError
from edgerazor.serve.errors import ApiError
from edgerazor.serve.queue import Job

_CHUNK = 64  # positions whose logits are held at once


@dataclass(frozen=True)
class TokenChances:
    """Text of a token, its log probability (None for the first of a text), and the likeliest tokens in its place."""

    text: str
    logprob: float | None
    likeliest: dict[str, float]


def chances_of(runtime: Runtime, logits: NDArray[np.float32], token: int, count: int) -> TokenChances:
    """Of a token whose place has these logits, float32 `[vocabulary]`, with the `count` likeliest."""
    shifted = logits.astype(np.float64) - float(logits.max())
    shifted -= np.log(np.exp(shifted).sum())
    first = len(shifted) - min(count, len(shifted))
    likeliest = np.argpartition(shifted, min(first, len(shifted) - 1))[first:]
    # Tokens that are parts of characters look alike: the likeliest of them, which comes last, stays.
    ranked = sorted((int(index) for index in likeliest), key=lambda index: (shifted[index], -index))
    return TokenChances(
        runtime.decode([token]),
        float(shifted[token]),
        dict(reversed({runtime.decode([index]): float(shifted[index]) for index in ranked}.items())),
    )


def score(runtime: Runtime, ids: Sequence[int], count: int | None, job: Job) -> list[TokenChances]:
    """Chances of every token of a text after those before it; none where `count` is None.

    Raises:
        ApiError: the model was exported so that it computes the last position alone.
    """
    if count is None:
        return []
    runtime.restart()
    found = [TokenChances(runtime.decode(ids[:1]), None, {})]
    for start in range(0, len(ids) - 1, _CHUNK):
        if job.ended:
            break
        chunk = ids[start : min(start + _CHUNK, len(ids) - 1)]
        try:
            logits = runtime.feed(chunk, every=True)
        except ExportError as error:
            raise ApiError(400, str(error), param="logprobs") from error
        following = ids[start + 1 : start + 1 + len(chunk)]
        found += [chances_of(runtime, row, token, count) for row, token in zip(logits, following, strict=True)]
    runtime.restart()  # whoever keeps count of what it holds does not know of these tokens
    return found


def as_dict(chances: Sequence[TokenChances], offset: int) -> dict[str, Any]:
    """As the interface writes them; `offset` is where the text of the first one begins."""
    ends = np.cumsum([offset, *(len(token.text) for token in chances)])
    return {
        "tokens": [token.text for token in chances],
        "token_logprobs": [token.logprob for token in chances],
        "top_logprobs": [token.likeliest if token.logprob is not None else None for token in chances],
        "text_offset": [int(end) for end in ends[:-1]],
    }
