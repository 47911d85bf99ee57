"""Forward KL, reverse KL and cross entropy of rows of logits, with their gradient (KERNELS 2.1 and 2.2).

z and u are the logits of student and teacher, `[rows, vocab]`, float32 or float64. Nothing is floored: the difference
of two log-probabilities is taken as (z - u) - D, which keeps its digits when the student is close to its teacher.
"""

from typing import NamedTuple

import torch
from torch import Tensor


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
    shifted = u - u.amax(dim=-1, keepdim=True)
    exponentials = shifted.exp()
    total = exponentials.sum(dim=-1)
    log_total = total.log()
    entropy = log_total - (exponentials * shifted).sum(dim=-1) / total
    label = shifted.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1) - log_total
    return entropy, label.where(labels >= 0, label.new_zeros(()))


def row_statistics(z: Tensor, u: Tensor | None, labels: Tensor, temperature: float = 1.0) -> RowStatistics:
    """The scalars of each row; without a teacher the divergences are zero."""
    cross_entropy = _cross_entropy(z, labels)
    if u is None:
        return RowStatistics(torch.zeros_like(cross_entropy), torch.zeros_like(cross_entropy), cross_entropy)
    q, p, difference = _distributions(z, u, temperature)
    scale = temperature**2
    forward_kl = (p * difference).sum(dim=-1).mul_(-scale)
    return RowStatistics(forward_kl, (q * difference).sum(dim=-1).mul_(scale), cross_entropy)


def row_gradient(
    z: Tensor, u: Tensor | None, labels: Tensor, weights: RowWeights, temperature: float = 1.0
) -> tuple[Tensor, RowStatistics]:
    """Gradient with respect to `z` of the weighted sum of the rows, and the statistics of the rows.

    g_j = a q_j (d_j - R) + b (q_j - p_j) + c (q1_j - [j = y]), a and b with one factor T of T² / T.
    """
    cross_entropy = _cross_entropy(z, labels)
    zero = torch.zeros_like(cross_entropy)
    gradient = torch.softmax(z, dim=-1)
    task = weights.cross_entropy.where(labels >= 0, zero).unsqueeze(-1)
    gradient.scatter_add_(-1, labels.clamp(min=0).unsqueeze(-1), -torch.ones_like(task)).mul_(task)
    if u is None:
        return gradient, RowStatistics(zero, zero, cross_entropy)
    q, p, difference = _distributions(z, u, temperature)
    forward_kl = -(p * difference).sum(dim=-1)
    reverse_kl = (q * difference).sum(dim=-1)
    difference -= reverse_kl.unsqueeze(-1)
    difference *= (weights.reverse_kl * temperature).unsqueeze(-1)
    forward_weight = (weights.forward_kl * temperature).unsqueeze(-1)
    difference += forward_weight
    gradient.addcmul_(q, difference).sub_(p.mul_(forward_weight))
    scale = temperature**2
    return gradient, RowStatistics(forward_kl * scale, reverse_kl * scale, cross_entropy)


def _distributions(z: Tensor, u: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """q, p and d = log q - log p, each a new `[rows, vocab]` tensor."""
    if temperature != 1.0:
        z, u = z / temperature, u / temperature
    highest_z, highest_u = z.amax(dim=-1, keepdim=True), u.amax(dim=-1, keepdim=True)
    q, p = (z - highest_z).exp_(), (u - highest_u).exp_()
    sum_q, sum_p = q.sum(dim=-1, keepdim=True), p.sum(dim=-1, keepdim=True)
    offset = (highest_z - highest_u) + (sum_q / sum_p).log()
    return q.div_(sum_q), p.div_(sum_p), (z - u).sub_(offset)


def _cross_entropy(z: Tensor, labels: Tensor) -> Tensor:
    label = z.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return (z.logsumexp(dim=-1) - label).where(labels >= 0, z.new_zeros(()))
