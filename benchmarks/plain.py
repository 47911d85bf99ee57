"""What contestants are held to: quantization and divergences written down plainly, from no library but torch.

Workers in a peer's environment import this too, so nothing of edgerazor is imported here.
"""

import math
from typing import Any, NamedTuple

import torch
from answers import GateError
from torch import Tensor

GROUP = 256
HIGHEST = {"ternary": 1, "int4": 7, "int8": 127}
EVERY = 8  # sqmp at 1/8: every eighth row has 4 bits


def quantized(groups: Tensor, kind: str, highest: Tensor | None = None) -> Tensor:
    """Values of `groups [n, g]` in their own dtype, computed in float32 with the sum in float64 (METHOD 1.2 and 1.3).

    Args:
        kind: ternary, int4, sqmp, or int8 with float32 scales.
        highest: `[n, 1]` float32, the largest code of each group; for sqmp alone.
    """
    exact = groups.float()
    if kind in ("ternary", "sqmp"):
        mean = exact.abs().sum(dim=-1, keepdim=True, dtype=torch.float64) / groups.shape[-1]
        scale = (2 * mean.float()).clamp(min=1e-5)
    top: Any = HIGHEST[kind] if highest is None else highest
    if kind != "ternary":
        largest = exact.abs().amax(dim=-1, keepdim=True).clamp(min=1e-5) / top
        scale = largest if highest is None else torch.where(highest == 1, scale, largest)
    if kind != "int8":
        scale = scale.clamp(2.0**-14, 65504.0).half().float()
    codes = (exact / scale).round().clamp(-top, top)
    return (codes * scale).to(groups.dtype)


def highest_codes(rows: int, columns: int) -> Tensor:
    """The largest code of each group under sqmp, `[groups, 1]`: 7 in every eighth row, else 1."""
    high = (torch.arange(rows) % EVERY == 0).repeat_interleave(columns // GROUP)
    return torch.where(high, 7.0, 1.0).unsqueeze(-1)


def fake_quantized(x: Tensor, kind: str) -> Tensor:
    """`x [R, C]` quantized in groups of `GROUP`."""
    highest = highest_codes(*x.shape).to(x.device) if kind == "sqmp" else None
    return quantized(x.reshape(-1, GROUP), kind, highest).reshape(x.shape)


class Rows(NamedTuple):
    """Per row `[N]`: forward KL, reverse KL, entropy of the teacher, cross entropy of the student."""

    forward: Tensor
    reverse: Tensor
    entropy: Tensor
    task: Tensor


def row_divergences(z: Tensor, u: Tensor, labels: Tensor, floor: float | None = None) -> Rows:
    """From logits `[N, V]` of student and teacher, in their dtype, differentiable.

    Args:
        labels: int64 `[N]`; negative ones have no cross entropy.
        floor: of probabilities, as in the original release (METHOD 10, F2); None: the exact divergences.
    """
    lq, lp = z.log_softmax(dim=-1), u.log_softmax(dim=-1)
    task = -lq.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1) * (labels >= 0)
    entropy = -(lp.exp() * lp).sum(dim=-1)
    if floor is not None:
        entropy = -(lp.exp() * (lp.exp() + floor).log()).sum(dim=-1)
        lq, lp = (logs.exp().clamp(min=floor).log() for logs in (lq, lp))
    forward, reverse = (lp.exp() * (lp - lq)).sum(dim=-1), (lq.exp() * (lq - lp)).sum(dim=-1)
    return Rows(forward, reverse, entropy, task)


def eakld(rows: Rows, mask: Tensor, support: int = 16) -> Tensor:
    """METHOD 4.3, `scope: batch`, `sequence_mean`, from rows of a flattened bool `mask [B, S]`."""
    forward, reverse, entropy = (sequence_mean(column, mask) for column in rows[:3])
    gamma = (1 - entropy / math.log(support)).clamp(0, 1).detach()
    return gamma * reverse + (1 - gamma) * forward


def sequence_mean(column: Tensor, mask: Tensor) -> Tensor:
    """Mean over sequences of the means over their positions, from a column `[B * S]` and a bool mask `[B, S]`."""
    return ((column.view(mask.shape) * mask).sum(dim=-1) / mask.sum(dim=-1)).mean()


@torch.no_grad()
def divergences_in_parts(z: Any, u: Any, labels: Tensor, floor: float | None = None) -> Rows:
    """`row_divergences` in float64, 64 rows at a time, so that the gate needs little memory.

    Args:
        z, u: `[N, V]`, tensors or what gives some rows of one when it is sliced.
    """
    parts = [
        row_divergences(
            z[start : start + 64].double(), u[start : start + 64].double(), labels[start : start + 64], floor
        )
        for start in range(0, len(z), 64)
    ]
    return Rows(*(torch.cat(column) for column in zip(*parts, strict=True)))


def relative(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    expected = expected.double()
    return float((found.double() - expected).norm() / expected.norm().clamp(min=1e-300))


def check(what: str, difference: float, limit: float) -> float:
    """The difference if it is within the limit.

    Raises:
        GateError: it is not, or is no number.
    """
    if not difference <= limit:
        raise GateError(f"{what} differs by {difference:.2e} from the definition; at most {limit:.0e} is allowed")
    return difference
