"""The formulas of METHOD 4.2 written out with autograd, to hold kernels and losses to."""

import torch
from torch import Tensor
from torch.nn import functional


def forward_kl(z: Tensor, u: Tensor, temperature: float) -> Tensor:
    """KL(teacher, student) of rows of logits, times T squared."""
    lq, lp = (functional.log_softmax(logits / temperature, dim=-1) for logits in (z, u))
    return temperature**2 * (lp.exp() * (lp - lq)).sum(dim=-1)


def reverse_kl(z: Tensor, u: Tensor, temperature: float) -> Tensor:
    """KL(student, teacher) of rows of logits, times T squared."""
    return forward_kl(u, z, temperature)


def cross_entropy(z: Tensor, labels: Tensor) -> Tensor:
    """Per row; 0 where the label is negative."""
    taken = functional.log_softmax(z, dim=-1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return torch.where(labels >= 0, -taken, torch.zeros_like(taken))


def entropy(u: Tensor) -> Tensor:
    """Of softmax(u), in nats, over the last axis."""
    lp = functional.log_softmax(u, dim=-1)
    return -(lp.exp() * lp).sum(dim=-1)
