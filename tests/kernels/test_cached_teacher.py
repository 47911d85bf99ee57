"""Kept tokens of a teacher: the divergence of k + 1 outcomes, its gradient, and its bound."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from edgerazor.kernels.cached_teacher import CachedTeacherLogits, TopTokens, top_tokens
from edgerazor.kernels.divergence import RowWeights, teacher_row_statistics
from edgerazor.kernels.fused_linear import TeacherLogits, fused_linear_distillation
from edgerazor.kernels.projection import Projection
from tests.kernels import oracle

ROWS, HIDDEN, VOCABULARY = 7, 5, 23
TEMPERATURES = (1.0, 2.0)


def drawn(seed: int, spread: float = 3.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, head, teacher logits, labels, float64."""
    generator = torch.Generator().manual_seed(seed)
    hidden, weight, u = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((ROWS, HIDDEN), (VOCABULARY, HIDDEN), (ROWS, VOCABULARY))
    )
    return hidden, weight, spread * u, torch.randint(0, VOCABULARY, (ROWS,), generator=generator)


def outcomes(logits: Tensor, ids: Tensor, temperature: float) -> Tensor:
    """Log probabilities of the kept tokens and of all others together, `[N, k + 1]`."""
    lp = (logits / temperature).log_softmax(dim=-1)
    others = lp.exp().scatter(-1, ids, 0.0).sum(dim=-1, keepdim=True)
    return torch.cat([lp.gather(-1, ids), others.log()], dim=-1)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("k", [1, 4, VOCABULARY - 1])
@pytest.mark.parametrize("chunk", [3, ROWS])
def test_value_and_gradient_are_those_of_the_outcomes_that_are_kept(temperature: float, k: int, chunk: int) -> None:
    hidden, weight, u, labels = drawn(0)
    tokens = top_tokens(u, labels, k, TEMPERATURES)
    weights = RowWeights(*(torch.rand(ROWS, dtype=torch.float64) + 0.1 for _ in range(3)))
    leaves = [hidden.clone().requires_grad_(True), weight.clone().requires_grad_(True)]
    source = CachedTeacherLogits(tokens, TEMPERATURES, chunk)
    value, _ = fused_linear_distillation(Projection(*leaves), source, labels, weights, temperature=temperature)
    again = [hidden.clone().requires_grad_(True), weight.clone().requires_grad_(True)]
    z, ids = again[0] @ again[1].T, tokens.ids.long()
    lq, lp = outcomes(z, ids, temperature), outcomes(u, ids, temperature)
    square = temperature**2
    expected = (
        weights.forward_kl * square * (lp.exp() * (lp - lq)).sum(dim=-1)
        + weights.reverse_kl * square * (lq.exp() * (lq - lp)).sum(dim=-1)
        + weights.cross_entropy * oracle.cross_entropy(z, labels)
    ).sum()
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-9)
    for found, wanted in zip(torch.autograd.grad(value, leaves), torch.autograd.grad(expected, again), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_with_all_tokens_kept_it_is_the_full_divergence(temperature: float) -> None:
    hidden, weight, u, labels = drawn(1)
    weights = RowWeights(*(torch.rand(ROWS, dtype=torch.float64) for _ in range(3)))
    identity = torch.eye(VOCABULARY, dtype=torch.float64)
    found = [
        fused_linear_distillation(Projection(hidden, weight), source, labels, weights, temperature=temperature)[0]
        for source in (
            CachedTeacherLogits(top_tokens(u, labels, VOCABULARY, TEMPERATURES), TEMPERATURES, ROWS),
            TeacherLogits(Projection(u, identity), ROWS),
        )
    ]
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)


@given(seed=st.integers(0, 1000), k=st.integers(1, VOCABULARY), spread=st.floats(0.1, 30))
def test_the_value_grows_with_k_up_to_the_full_divergence(seed: int, k: int, spread: float) -> None:
    hidden, weight, u, labels = drawn(seed, spread)
    none, ones = torch.zeros(ROWS, dtype=torch.float64), torch.ones(ROWS, dtype=torch.float64)
    values = [
        float(
            fused_linear_distillation(
                Projection(hidden, weight),
                CachedTeacherLogits(top_tokens(u, labels, kept, (1.0,)), (1.0,), ROWS),
                labels,
                RowWeights(ones, none, none),
            )[0]
        )
        for kept in (k, min(k + 1, VOCABULARY), VOCABULARY)
    ]
    assert -1e-9 <= values[0] <= values[1] + 1e-9 and values[1] <= values[2] + 1e-9


def test_entropy_and_label_are_those_of_the_whole_distribution() -> None:
    _, _, u, labels = drawn(2)
    labels[3] = -100
    tokens = top_tokens(u, labels, 2, (1.0,))
    entropy, label = teacher_row_statistics(u, labels)
    torch.testing.assert_close(tokens.entropy, entropy)
    torch.testing.assert_close(tokens.label_log_probability, label)
    assert tokens.ids.dtype == torch.int32


def test_a_sure_teacher_leaves_a_small_remainder_its_digits() -> None:
    u = torch.full((1, VOCABULARY), -30.0, dtype=torch.float64)
    u[0, 4] = 10.0
    tokens = top_tokens(u, torch.tensor([4]), 1, (1.0,))
    assert float(tokens.log_rest) == pytest.approx(-40 + torch.tensor(22.0).log().item(), rel=1e-6)
    source = CachedTeacherLogits(TopTokens(*tokens), (1.0,), 1)
    row = source.rows(slice(0, 1), torch.randn(1, VOCABULARY, dtype=torch.float64), 1.0)
    assert bool(torch.isfinite(row).all()) and float(row.logsumexp(dim=-1)) == pytest.approx(0, abs=1e-9)
