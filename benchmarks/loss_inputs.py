"""Inputs of the loss benchmarks: final hidden states and head weights of a student and a teacher, the same everywhere.

Logits have a standard deviation of about 2, and the teacher is rather sure of each row's label, so that gamma lies
inside (0, 1) and few probabilities are below the floor of the original release.
"""

from typing import NamedTuple

import plain
import torch
from torch import Tensor

SUPPORT = 16


class Inputs(NamedTuple):
    """`hidden [N, H]`, `weight [V, H]` of both, `labels [N]`, and the bool mask `[B, S]` of N = B * S positions."""

    hidden: Tensor
    weight: Tensor
    teacher_hidden: Tensor
    teacher_weight: Tensor
    labels: Tensor
    mask: Tensor

    def logits(self) -> tuple[Tensor, Tensor]:
        """Logits `[N, V]` of student and teacher, in the dtype of their operands."""
        return self.hidden @ self.weight.t(), self.teacher_hidden @ self.teacher_weight.t()

    def first(self, rows: int) -> "Inputs":
        """The first rows as one sequence, for the gate: with half the student's hidden states, exactly.

        Else the student is so near to its teacher that both divergences are nearly the same, and gamma hardly matters.
        """
        chosen = (tensor[:rows].detach().clone() for tensor in (self.hidden, self.teacher_hidden, self.labels))
        hidden, teacher_hidden, labels = chosen
        hidden /= 2
        mask = torch.ones(1, len(labels), dtype=torch.bool, device=labels.device)
        return Inputs(hidden, self.weight, teacher_hidden, self.teacher_weight, labels, mask)


def make_inputs(sequences: int, tokens: int, vocabulary: int, width: int, *, dtype: torch.dtype, device: str) -> Inputs:
    """The same inputs for every contestant: seeded, computed on the CPU in float32, then cast."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    rows = sequences * tokens
    teacher_weight = 2 / width**0.5 * normal(vocabulary, width)
    labels = torch.randint(0, vocabulary, (rows,), generator=generator)
    teacher_hidden = normal(rows, width) + 3.5 * teacher_weight[labels]
    weight = teacher_weight + 0.2 / width**0.5 * normal(vocabulary, width)
    hidden = teacher_hidden + 0.1 * normal(rows, width)
    cast = [tensor.to(device, dtype) for tensor in (hidden, weight, teacher_hidden, teacher_weight)]
    mask = torch.ones(sequences, tokens, dtype=torch.bool, device=device)
    return Inputs(*cast, labels.to(device), mask)


def defined(z: Tensor, u: Tensor, inputs: Inputs, *, task: float, floor: float | None) -> Tensor:
    """EAKLD plus `task` times the mean cross entropy, differentiable, in the dtype of the logits."""
    rows = plain.row_divergences(z, u, inputs.labels, floor)
    return plain.eakld(rows, inputs.mask, SUPPORT) + task * rows.task.mean()
