"""The compiled row kernels against the formulas in float64."""

import os
import shutil

import pytest
import torch
from torch import Tensor

from edgerazor.kernels import dispatch, divergence
from edgerazor.kernels.compiled_rows import FEWEST_ROWS
from edgerazor.kernels.divergence import RowWeights

ROWS, VOCABULARY = 3 * FEWEST_ROWS, 352

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch.compile needs a C++ compiler"),
    pytest.mark.subprocess,  # torch tries once on every processor, in another Python, what its compiler can do there
]


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.SETTING, "compiled")


def drawn(dtype: torch.dtype, rows: int = ROWS, spread: float = 3.0) -> tuple[Tensor, Tensor, Tensor, RowWeights]:
    generator = torch.Generator().manual_seed(rows)
    z, u = (torch.randn(2, rows, VOCABULARY, generator=generator) * spread).to(dtype)
    labels = torch.randint(0, VOCABULARY, (rows,), generator=generator)
    labels[::4] = -100
    return z, u, labels, RowWeights(*torch.rand(3, rows, generator=generator))


def assert_close(found: Tensor, exact: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(found.double(), exact, rtol=tolerance, atol=tolerance * float(exact.abs().max()))


@pytest.mark.parametrize(
    ("dtype", "temperature", "tolerance"), [(torch.float32, 1.0, 1e-6), (torch.bfloat16, 2.5, 2.0**-8)]
)
def test_gradient_and_statistics_are_the_formulas(dtype: torch.dtype, temperature: float, tolerance: float) -> None:
    for rows in (ROWS, ROWS + 5):  # share their machine code
        z, u, labels, weights = drawn(dtype, rows)
        exact, exact_statistics = divergence.row_gradient(z.double(), u.double(), labels, weights, temperature)
        gradient, statistics = dispatch.row_gradient(z, u, labels, weights, temperature)
        alone = dispatch.row_statistics(z, u, labels, temperature)
        assert gradient.dtype == dtype
        assert_close(gradient, exact, tolerance)
        for column, again, expected in zip(statistics, alone, exact_statistics, strict=True):
            assert_close(column, expected, 1e-6)
            assert_close(again, expected, 1e-6)
        written, _ = dispatch.row_gradient(z, u, labels, weights, temperature, out=z)
        assert written is z and torch.equal(z, gradient)


def test_teacher_statistics_are_the_formulas() -> None:
    _, u, labels, _ = drawn(torch.float32)
    for column, exact in zip(
        dispatch.teacher_row_statistics(u, labels),
        divergence.teacher_row_statistics(u.double(), labels),
        strict=True,
    ):
        assert_close(column, exact, 1e-6)


def test_large_logits_stay_finite() -> None:
    z, u, labels, weights = drawn(torch.float32, spread=1e4)
    exact, exact_statistics = divergence.row_gradient(z.double(), u.double(), labels, weights)
    gradient, statistics = dispatch.row_gradient(z, u, labels, weights)
    assert bool(torch.isfinite(gradient).all())
    for column, expected in zip(statistics, exact_statistics, strict=True):
        assert_close(column, expected, 1e-5)
    assert_close(gradient, exact, 1e-4)


def test_equal_logits_have_no_divergence_and_no_gradient() -> None:
    z, _, labels, weights = drawn(torch.float32)
    gradient, statistics = dispatch.row_gradient(z, z, labels, weights._replace(cross_entropy=torch.zeros(ROWS)))
    assert not bool(gradient.any()) and not bool(statistics.forward_kl.any())


@pytest.mark.parametrize("rows", [0, FEWEST_ROWS - 1])
def test_a_few_rows_are_not_worth_compiling(rows: int) -> None:
    z, u, labels, weights = drawn(torch.float32, rows)
    expected, _ = divergence.row_gradient(z, u, labels, weights)
    assert torch.equal(dispatch.row_gradient(z, u, labels, weights)[0], expected)
    without, statistics = dispatch.row_gradient(z, None, labels, weights)
    assert torch.equal(without, divergence.row_gradient(z, None, labels, weights)[0])
    assert not bool(statistics.forward_kl.any())
