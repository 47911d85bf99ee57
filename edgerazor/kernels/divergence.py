"""Forward KL, reverse KL and cross entropy of rows of logits, with their gradient (KERNELS 2.1 and 2.2).

z and u are the logits of student and teacher, `[rows, vocab]`; half-precision ones are computed in float32. Nothing is
floored: the difference of two log-probabilities is taken as (z - u) - D, which keeps its digits when the student is
close to its teacher. A few rows are computed at a time, in buffers that stay in the processor's cache.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

BLOCK_BYTES = 2**20


class RowStatistics(NamedTuple):
    """Scalars per row, each `[rows]`.

    forward_kl and reverse_kl carry the factor T²; cross_entropy is at temperature 1 and 0 where the label is negative.
    """

    forward_kl: Tensor
    reverse_kl: Tensor
    cross_entropy: Tensor


class RowWeights(NamedTuple):
    """Factors of the three terms per row, each `[rows]`; the value is the sum of factor times statistic."""

    forward_kl: Tensor
    reverse_kl: Tensor
    cross_entropy: Tensor


def teacher_row_statistics(u: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Entropy of softmax(u) in nats and log probability of the label (0 where it is negative), each `[rows]`."""
    entropy, label = u.new_zeros(2, len(u), dtype=_exact(u))
    for rows, (shifted, exponentials) in _blocks(u, buffers=2):
        widened = _widened(u[rows], shifted)
        torch.sub(widened, widened.amax(dim=-1, keepdim=True), out=shifted)
        total = torch.exp(shifted, out=exponentials).sum(dim=-1)
        label[rows] = _at_label(shifted, labels[rows]).squeeze(-1) - total.log()
        entropy[rows] = total.log() - exponentials.mul_(shifted).sum(dim=-1) / total
    return entropy, label.where(labels >= 0, label.new_zeros(()))


def row_statistics(z: Tensor, u: Tensor | None, labels: Tensor, temperature: float = 1.0) -> RowStatistics:
    """The scalars of each row, in at least float32; without a teacher the divergences are zero."""
    found = _empty_statistics(z)
    for rows, buffers in _blocks(z, buffers=5):
        block = _compare(z[rows], None if u is None else u[rows], labels[rows], temperature, buffers)
        _write(found, rows, block, temperature)
    return found


def row_gradient(
    z: Tensor,
    u: Tensor | None,
    labels: Tensor,
    weights: RowWeights,
    temperature: float = 1.0,
    *,
    out: Tensor | None = None,
) -> tuple[Tensor, RowStatistics]:
    """Gradient with respect to `z` of the weighted sum of the rows, and the statistics of the rows.

    g_j = a q_j (d_j - R) + b (q_j - p_j) + c (q1_j - [j = y]), a and b with one factor T of T² / T.

    Args:
        out: where the gradient goes, rounded once to its dtype; may be `z` itself. None makes a tensor like `z`.
    """
    gradient, found = torch.empty_like(z) if out is None else out, _empty_statistics(z)
    in_place = gradient.dtype == _exact(z)
    for rows, buffers in _blocks(z, buffers=5):
        if in_place:
            buffers[0] = gradient[rows]
        block = _compare(z[rows], None if u is None else u[rows], labels[rows], temperature, buffers)
        _write(found, rows, block, temperature)
        b, a, c = (column[rows].to(block.q.dtype).unsqueeze(-1) for column in weights)
        task = c.where(labels[rows].unsqueeze(-1) >= 0, c.new_zeros(()))
        _make_gradient(block, a * temperature, b * temperature, task)
        block.q.scatter_add_(-1, labels[rows].clamp(min=0).unsqueeze(-1), -task)
        if not in_place:
            gradient[rows] = block.q
    return gradient, found


class _Block(NamedTuple):
    """A few rows: exponentials q, p and q1 (the student's at temperature 1), still to be divided by their sums.

    difference is log q - log p; sums and statistics are `[rows, 1]`, the latter without the factor T². p is None where
    there is no teacher.
    """

    q: Tensor
    p: Tensor | None
    q1: Tensor
    difference: Tensor
    sum_q: Tensor
    sum_p: Tensor
    sum_q1: Tensor
    statistics: RowStatistics


def _compare(z: Tensor, u: Tensor | None, labels: Tensor, temperature: float, buffers: Sequence[Tensor]) -> _Block:
    """Exponentials, differences and statistics of some rows, in five buffers; the first may be the memory of `z`."""
    q, p, difference, product, q1 = buffers
    z = _widened(z, q)
    highest, label = z.amax(dim=-1, keepdim=True), _at_label(z, labels)
    if u is not None:
        u = _widened(u, p)
        torch.sub(z, u, out=difference)
    if temperature == 1.0:
        q1, sum_q1 = q, _exponentials(z, highest, 1.0, out=q)
        sum_q = sum_q1
    else:
        sum_q1 = _exponentials(z, highest, 1.0, out=q1)
        sum_q = _exponentials(z, highest, temperature, out=q)
    zero = torch.zeros_like(label)
    cross_entropy = (highest - label + sum_q1.log()).where(labels.unsqueeze(-1) >= 0, zero)
    if u is None:
        return _Block(q, None, q1, difference, sum_q, sum_q, sum_q1, RowStatistics(zero, zero, cross_entropy))
    highest_u = u.amax(dim=-1, keepdim=True)
    sum_p = _exponentials(u, highest_u, temperature, out=p)
    if temperature != 1.0:
        difference.div_(temperature)
    difference.sub_((highest - highest_u) / temperature + (sum_q / sum_p).log())
    forward_kl = -torch.mul(p, difference, out=product).sum(dim=-1, keepdim=True) / sum_p
    reverse_kl = torch.mul(q, difference, out=product).sum(dim=-1, keepdim=True) / sum_q
    return _Block(q, p, q1, difference, sum_q, sum_p, sum_q1, RowStatistics(forward_kl, reverse_kl, cross_entropy))


def _make_gradient(block: _Block, a: Tensor, b: Tensor, c: Tensor) -> None:
    """Write the gradient of some rows over `q`; the share of the labels themselves is still missing."""
    if block.p is None:
        torch.mul(block.q1, c / block.sum_q1, out=block.q)
        return
    constant = b + c if block.q1 is block.q else b
    block.difference.sub_(block.statistics.reverse_kl).mul_(a / block.sum_q).add_(constant / block.sum_q)
    # Two roundings alike, so that the gradient is 0 where both agree; a fused product and sum would leave one.
    block.q.mul_(block.difference).sub_(block.p.mul_(b / block.sum_p))
    if block.q1 is not block.q:
        block.q.addcmul_(block.q1, c / block.sum_q1)


def _exponentials(x: Tensor, highest: Tensor, temperature: float, *, out: Tensor) -> Tensor:
    """`exp((x - highest) / temperature)` into `out`; returns the sums `[rows, 1]`."""
    torch.sub(x, highest, out=out)
    if temperature != 1.0:
        out.div_(temperature)
    return out.exp_().sum(dim=-1, keepdim=True)


def _at_label(x: Tensor, labels: Tensor) -> Tensor:
    """The logit of each row's label, `[rows, 1]`; that of column 0 where the label is negative."""
    return x.gather(-1, labels.clamp(min=0).unsqueeze(-1))


def _empty_statistics(z: Tensor) -> RowStatistics:
    return RowStatistics(*(z.new_zeros(len(z), dtype=_exact(z)) for _ in range(3)))


def _exact(logits: Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)


def _widened(logits: Tensor, buffer: Tensor) -> Tensor:
    """The logits in the dtype of the buffer: themselves, or a copy in the buffer if theirs is another."""
    return logits if logits.dtype == buffer.dtype else buffer.copy_(logits)


def _write(found: RowStatistics, rows: slice, block: _Block, temperature: float) -> None:
    for column, value, factor in zip(found, block.statistics, (temperature**2, temperature**2, 1.0), strict=True):
        column[rows] = value.squeeze(-1) * factor


def _blocks(z: Tensor, *, buffers: int) -> Iterator[tuple[slice, list[Tensor]]]:
    """Slices of rows, with that many buffers of their shape, used again for each; on a GPU all rows at once."""
    exact = _exact(z)
    rows = max(1, BLOCK_BYTES * torch.get_num_threads() // (z.shape[-1] * exact.itemsize))
    rows = min(len(z), rows if z.device.type == "cpu" else len(z))
    scratch = [z.new_empty(rows, z.shape[-1], dtype=exact) for _ in range(buffers)]
    for start in range(0, len(z), max(rows, 1)):
        stop = min(start + rows, len(z))
        yield slice(start, stop), [buffer[: stop - start] for buffer in scratch]
