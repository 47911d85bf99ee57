"""Row scalars and gradients against plain autograd in float64 (KERNELS 2.1 and 2.2)."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgerazor.kernels.divergence import RowWeights, row_gradient, row_statistics, teacher_row_statistics
from tests.kernels import oracle

ROWS, VOCABULARY = 9, 23


def drawn(seed: int, spread: float = 3.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, RowWeights]:
    generator = torch.Generator().manual_seed(seed)
    z, u = torch.randn(2, ROWS, VOCABULARY, generator=generator, dtype=torch.float64) * spread
    labels = torch.randint(0, VOCABULARY, (ROWS,), generator=generator)
    labels[::4] = -100
    weights = RowWeights(*torch.rand(3, ROWS, generator=generator, dtype=torch.float64))
    return z, u, labels, weights


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@given(seed=st.integers(0, 2**32 - 1))
def test_statistics_are_the_formulas(temperature: float, seed: int) -> None:
    z, u, labels, _ = drawn(seed)
    found = row_statistics(z, u, labels, temperature)
    expected = (
        oracle.forward_kl(z, u, temperature),
        oracle.reverse_kl(z, u, temperature),
        oracle.cross_entropy(z, labels),
    )
    for column, other in zip(found, expected, strict=True):
        torch.testing.assert_close(column, other, rtol=1e-9, atol=1e-12)
    entropy, label = teacher_row_statistics(u, labels)
    torch.testing.assert_close(entropy, oracle.entropy(u), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(label, -oracle.cross_entropy(u, labels), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@given(seed=st.integers(0, 2**32 - 1))
def test_the_gradient_is_the_one_of_autograd(temperature: float, seed: int) -> None:
    z, u, labels, weights = drawn(seed)
    gradient, statistics = row_gradient(z, u, labels, weights, temperature)
    z.requires_grad_(True)
    terms = (
        oracle.forward_kl(z, u, temperature),
        oracle.reverse_kl(z, u, temperature),
        oracle.cross_entropy(z, labels),
    )
    sum((weight * term).sum() for weight, term in zip(weights, terms, strict=True)).backward()
    torch.testing.assert_close(gradient, z.grad, rtol=1e-9, atol=1e-12)
    for column, other in zip(statistics, row_statistics(z.detach(), u, labels, temperature), strict=True):
        torch.testing.assert_close(column, other, rtol=1e-12, atol=1e-14)


def test_without_a_teacher_the_cross_entropy_is_left() -> None:
    z, _, labels, weights = drawn(0)
    gradient, statistics = row_gradient(z, None, labels, weights)
    z.requires_grad_(True)
    (weights.cross_entropy * oracle.cross_entropy(z, labels)).sum().backward()
    torch.testing.assert_close(gradient, z.grad, rtol=1e-12, atol=1e-14)
    assert not bool(statistics.forward_kl.any()) and not bool(statistics.reverse_kl.any())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_logits_of_ten_thousand_stay_finite_and_right(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    z, u = (torch.rand(2, ROWS, VOCABULARY, generator=generator) * 2 - 1) * 1e4
    _, _, labels, weights = drawn(0)
    weights = RowWeights(*(column.float() for column in weights))
    gradient, statistics = row_gradient(z, u, labels, weights, temperature)
    exact = z.double().requires_grad_(True)
    terms = (
        oracle.forward_kl(exact, u.double(), temperature),
        oracle.reverse_kl(exact, u.double(), temperature),
        oracle.cross_entropy(exact, labels),
    )
    sum((weight.double() * term).sum() for weight, term in zip(weights, terms, strict=True)).backward()
    assert exact.grad is not None and bool(torch.isfinite(gradient).all())
    for column, other in zip(statistics, terms, strict=True):
        torch.testing.assert_close(column.double(), other.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient.double(), exact.grad, rtol=1e-3, atol=1e-4 * float(exact.grad.abs().max()))


def test_a_student_twenty_below_its_teacher_keeps_its_gradient() -> None:
    """No floor on probabilities: forward KL and gradient of a token at e^-40 (fault F2)."""
    u = torch.tensor([[40.0, 0.0]])
    z = torch.tensor([[0.0, 40.0]])
    weights = RowWeights(torch.ones(1), torch.zeros(1), torch.zeros(1))
    gradient, statistics = row_gradient(z, u, torch.tensor([-100]), weights)
    assert float(statistics.forward_kl) == pytest.approx(40, rel=1e-6)
    assert gradient.tolist() == [pytest.approx([-1, 1], rel=1e-6)]


def test_a_student_close_to_its_teacher_keeps_its_digits() -> None:
    """The difference of two log-probabilities is not taken: the worst row stays within 1 % of the mean."""
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(64, 8000, generator=generator) * 3
    z = u + torch.randn(64, 8000, generator=generator) * 0.01
    found = row_statistics(z, u, torch.full((64,), -100))
    for column, formula in ((found.forward_kl, oracle.forward_kl), (found.reverse_kl, oracle.reverse_kl)):
        exact = formula(z.double(), u.double(), 1.0)
        assert float((column.double() - exact).abs().max()) <= 0.01 * float(exact.mean())


def test_equal_logits_have_no_divergence_and_no_gradient() -> None:
    z, _, labels, _ = drawn(1)
    weights = RowWeights(torch.ones(ROWS), torch.ones(ROWS), torch.zeros(ROWS))
    gradient, statistics = row_gradient(z.float(), z.float(), labels, weights)
    assert not bool(statistics.forward_kl.any()) and not bool(statistics.reverse_kl.any())
    assert float(gradient.abs().max()) == 0.0
