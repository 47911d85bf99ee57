"""The Jensen-Shannon divergence from hidden states, in chunks, against plain autograd (METHOD 4.2)."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from edgerazor.kernels.fused_linear import TeacherLogits
from edgerazor.kernels.jensen_shannon import fused_jensen_shannon
from edgerazor.kernels.projection import Projection

ROWS, HIDDEN, VOCABULARY = 11, 6, 29


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("chunk", [1, 4, ROWS])
@pytest.mark.parametrize(("beta", "temperature", "bias"), [(0.5, 1.0, False), (0.2, 2.5, True), (0.9, 0.4, True)])
def test_value_and_gradients_do_not_depend_on_chunks(chunk: int, beta: float, temperature: float, bias: bool) -> None:
    leaves = [drawn(ROWS, HIDDEN, seed=0), drawn(VOCABULARY, HIDDEN, seed=1), drawn(VOCABULARY, seed=2)]
    leaves = [leaf.requires_grad_() for leaf in leaves[: 2 + bias]]
    teacher = Projection(drawn(ROWS, 4, seed=3), drawn(VOCABULARY, 4, seed=4))
    factors = drawn(ROWS, seed=5).abs()
    factors[2::4] = 0
    value, rows = fused_jensen_shannon(
        Projection(*leaves), TeacherLogits(teacher, chunk), factors, beta=beta, temperature=temperature
    )
    q = (functional.linear(*leaves) / temperature).softmax(dim=-1)
    p = (functional.linear(*teacher[:3]) / temperature).softmax(dim=-1)
    m = beta * p + (1 - beta) * q
    exact = temperature**2 * (beta * p * (p / m).log() + (1 - beta) * q * (q / m).log()).sum(dim=-1)
    torch.testing.assert_close(rows, exact.detach())
    expected = (exact * factors).sum()
    torch.testing.assert_close(value, expected)
    for found, wanted in zip(torch.autograd.grad(value, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(found, wanted)


def test_a_bfloat16_head_gives_a_float32_value() -> None:
    hidden, weight = drawn(ROWS, HIDDEN, seed=0).bfloat16(), drawn(VOCABULARY, HIDDEN, seed=1).bfloat16()
    teacher, factors = drawn(ROWS, VOCABULARY, seed=3), torch.ones(ROWS)
    source = TeacherLogits(Projection(teacher.float(), torch.eye(VOCABULARY)), 4)
    student = Projection(hidden.requires_grad_(), weight.requires_grad_())
    value, _ = fused_jensen_shannon(student, source, factors, beta=0.5)
    exact = Projection(hidden.detach().double(), weight.detach().double())
    same = TeacherLogits(Projection(teacher.float().double(), torch.eye(VOCABULARY, dtype=torch.float64)), 4)
    expected, _ = fused_jensen_shannon(exact, same, factors.double(), beta=0.5)
    torch.testing.assert_close(value.detach().double(), expected, rtol=1e-5, atol=0)
    gradients = torch.autograd.grad(value, [hidden, weight])
    assert all(gradient.dtype == torch.bfloat16 and bool(gradient.any()) for gradient in gradients)
