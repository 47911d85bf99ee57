"""Triton's row statistics and gradients against autograd in float64 and against their twins (KERNELS 2.1, 2.2)."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgerazor.kernels import divergence
from edgerazor.kernels.divergence import RowWeights
from tests.kernels import oracle

pytest.importorskip("triton")
from edgerazor.kernels.triton.row_gradient import row_gradient
from edgerazor.kernels.triton.row_statistics import row_statistics
from edgerazor.kernels.triton.teacher_statistics import teacher_row_statistics

pytestmark = [
    pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered:RuntimeWarning"),
    pytest.mark.slow,
]
# A compiled exp is right to two units in the last place, the interpreter's to one.
TOLERANCE = {"cpu": 1e-6, "cuda": 4e-6}
ROWS = 3
every_vocabulary = pytest.mark.parametrize("vocabulary", [2, 23, 4096, 9001])
every_temperature = pytest.mark.parametrize("temperature", [1.0, 0.3, 2.5])


class Rows(NamedTuple):
    """Logits of student and teacher, labels of which the first is missing, and weights of which the second are zero."""

    z: Tensor
    u: Tensor
    labels: Tensor
    weights: RowWeights


def drawn(vocabulary: int, *, rows: int = ROWS, spread: float = 3.0, seed: int = 0) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    z, u = torch.randn(2, rows, vocabulary, generator=generator) * spread
    labels = torch.randint(0, vocabulary, (rows,), generator=generator)
    labels[0] = -100
    weights = RowWeights(*torch.rand(3, rows, generator=generator))
    for column in weights:
        column[1:2] = 0
    return Rows(z, u, labels, weights)


def to(device: str, rows: Rows) -> Rows:
    return Rows(
        rows.z.to(device), rows.u.to(device), rows.labels.to(device), RowWeights(*(w.to(device) for w in rows[3]))
    )


def exact(rows: Rows, temperature: float, *, teacher: bool = True) -> tuple[tuple[Tensor, ...], Tensor]:
    """The three statistics of each row and the gradient, by autograd in float64."""
    z, u = rows.z.double().requires_grad_(True), rows.u.double()
    cross_entropy = oracle.cross_entropy(z, rows.labels)
    zero = torch.zeros_like(cross_entropy)
    forward_kl = oracle.forward_kl(z, u, temperature) if teacher else zero
    reverse_kl = oracle.reverse_kl(z, u, temperature) if teacher else zero
    terms = (forward_kl, reverse_kl, cross_entropy)
    sum((weight.double() * term).sum() for weight, term in zip(rows.weights, terms, strict=True)).backward()
    assert z.grad is not None
    return tuple(term.detach() for term in terms), z.grad


def assert_close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Relative to the element or to the largest one."""
    atol = tolerance * float(expected.abs().max()) if expected.numel() else 0
    torch.testing.assert_close(found.cpu().double(), expected, rtol=tolerance, atol=atol)


@pytest.mark.slow
@every_vocabulary
@every_temperature
@pytest.mark.parametrize("spread", [3.0, 1e4])
@pytest.mark.parametrize("teacher", [True, False], ids=["teacher", "task only"])
def test_statistics_and_gradients_are_the_formulas(
    vocabulary: int, temperature: float, spread: float, teacher: bool, device: str
) -> None:
    rows = drawn(vocabulary, spread=spread)
    z, u, labels, weights = to(device, rows)
    gradient, statistics = row_gradient(z, u if teacher else None, labels, weights, temperature)
    expected, expected_gradient = exact(rows, temperature, teacher=teacher)
    for column, other in zip(statistics, expected, strict=True):
        assert_close(column, other, TOLERANCE[device])
    value, expected_value = (
        sum(
            float((weight.double().cpu() * column.double().cpu()).sum())
            for weight, column in zip(weights, columns, strict=True)
        )
        for columns in (statistics, expected)
    )
    assert value == pytest.approx(expected_value, rel=TOLERANCE[device])
    assert_close(gradient, expected_gradient, 1e-5)
    assert not bool(gradient[1].any()), "a row of weight zero has no gradient"


@every_vocabulary
@pytest.mark.parametrize("spread", [3.0, 1e4])
def test_teacher_statistics_are_the_formulas(vocabulary: int, spread: float, device: str) -> None:
    _, u, labels, _ = drawn(vocabulary, spread=spread)
    entropy, label = teacher_row_statistics(u.to(device), labels.to(device))
    expected = oracle.entropy(u.double())
    torch.testing.assert_close(entropy.cpu().double(), expected, rtol=TOLERANCE[device], atol=1e-6)
    assert_close(label, -oracle.cross_entropy(u.double(), labels), TOLERANCE[device])


@pytest.mark.slow
@given(
    seed=st.integers(0, 2**32 - 1),
    vocabulary=st.integers(1, 60),
    spread=st.sampled_from([0.0, 0.01, 3.0, 300.0]),
    temperature=st.floats(0.1, 10),
)
@example(seed=0, vocabulary=2, spread=0.01, temperature=5.0)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_twins_agree(seed: int, vocabulary: int, spread: float, temperature: float, device: str) -> None:
    rows = drawn(vocabulary, rows=4, spread=spread, seed=seed)
    expected_gradient, expected = divergence.row_gradient(*rows, temperature)
    on_device = to(device, rows)
    gradient, statistics = row_gradient(*on_device, temperature)
    found = row_statistics(*on_device[:3], temperature)
    scale = 1 + spread * max(temperature, 1)
    # A divergence is a sum of differences of logits over T, about spread / T, and is off by as many units in the last
    # place of them, or of 1; then it is multiplied by T².
    rounding = 2e-6 * (scale + temperature**2)
    for alone, column, other in zip(found, statistics, expected, strict=True):
        assert torch.equal(alone, column) and column.dtype == other.dtype
        torch.testing.assert_close(column.cpu(), other, rtol=1e-5, atol=rounding)
    torch.testing.assert_close(gradient.cpu(), expected_gradient, rtol=1e-4, atol=2e-6 * scale * scale)
    twin = divergence.teacher_row_statistics(rows.u, rows.labels)
    for column, other in zip(teacher_row_statistics(on_device.u, on_device.labels), twin, strict=True):
        torch.testing.assert_close(column.cpu(), other, rtol=1e-5, atol=2e-6 * scale)


@pytest.mark.parametrize("teacher", [True, False], ids=["teacher", "task only"])
def test_the_gradient_may_take_the_memory_of_the_logits(teacher: bool, device: str) -> None:
    z, u, labels, weights = to(device, drawn(5000))
    kept = z.clone()
    expected, statistics = row_gradient(z, u if teacher else None, labels, weights, 2.5)
    assert torch.equal(z, kept)
    gradient, again = row_gradient(z, u if teacher else None, labels, weights, 2.5, out=z)
    assert gradient.data_ptr() == z.data_ptr() and torch.equal(z, expected)
    assert all(torch.equal(column, other) for column, other in zip(statistics, again, strict=True))


@pytest.mark.parametrize("transposed", [False, True])
def test_rows_may_lie_anywhere(transposed: bool, device: str) -> None:
    """Logits that are part of a wider matrix, by rows or by columns; nothing beside them is touched."""
    rows = to(device, drawn(23))
    wide = torch.full((30, ROWS) if transposed else (ROWS, 30), 7.0, device=device)
    view = (wide.t() if transposed else wide)[:, :23]
    view.copy_(rows.z)
    expected, statistics = row_gradient(*rows)
    assert torch.equal(row_statistics(view, rows.u, rows.labels).forward_kl, statistics.forward_kl)
    teacher = teacher_row_statistics(view, rows.labels)
    assert all(torch.equal(*pair) for pair in zip(teacher, teacher_row_statistics(rows.z, rows.labels), strict=True))
    gradient, _ = row_gradient(view, rows.u, rows.labels, rows.weights, out=view)
    assert torch.equal(gradient, expected) and torch.equal(view, expected)
    assert bool((wide[23:] if transposed else wide[:, 23:]).eq(7).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_logits_are_widened_as_they_are_read(dtype: torch.dtype, device: str) -> None:
    z, u, labels, weights = to(device, drawn(4500))
    z, u = z.to(dtype), u.to(dtype)
    gradient, statistics = row_gradient(z, u, labels, weights)
    expected, wide = row_gradient(z.float(), u.float(), labels, weights)
    assert all(torch.equal(column, other) for column, other in zip(statistics, wide, strict=True))
    assert gradient.dtype == dtype
    if device == "cuda" or dtype == torch.float16:  # the interpreter truncates what it stores as bfloat16
        assert torch.equal(gradient, expected.to(dtype))


def test_a_student_close_to_its_teacher_keeps_its_digits(device: str) -> None:
    """The worst row stays within 1 % of the mean, as for the reference."""
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(8, 8000, generator=generator) * 3
    z = u + torch.randn(8, 8000, generator=generator) * 0.01
    found = row_statistics(z.to(device), u.to(device), torch.full((8,), -100, device=device))
    for column, formula in ((found.forward_kl, oracle.forward_kl), (found.reverse_kl, oracle.reverse_kl)):
        expected = formula(z.double(), u.double(), 1.0)
        assert float((column.cpu().double() - expected).abs().max()) <= 0.01 * float(expected.mean())


def test_a_student_twenty_below_its_teacher_keeps_its_gradient(device: str) -> None:
    """No floor on probabilities: forward KL and gradient of a token at e^-40."""
    u, z = torch.tensor([[40.0, 0.0]], device=device), torch.tensor([[0.0, 40.0]], device=device)
    factor = torch.ones(1, device=device)
    label = torch.tensor([-100], device=device)
    gradient, statistics = row_gradient(z, u, label, RowWeights(factor, 0 * factor, 0 * factor))
    assert float(statistics.forward_kl) == pytest.approx(40, rel=1e-6)
    assert gradient.tolist() == [pytest.approx([-1, 1], rel=1e-6)]


@every_temperature
def test_equal_logits_have_no_divergence_and_no_gradient(temperature: float, device: str) -> None:
    z, _, labels, weights = to(device, drawn(4500))
    gradient, statistics = row_gradient(z, z, labels, weights._replace(cross_entropy=0 * weights[2]), temperature)
    assert not bool(statistics.forward_kl.any()) and not bool(statistics.reverse_kl.any())
    assert not bool(gradient.any())


def test_a_label_outside_the_vocabulary_is_not_read(device: str) -> None:
    z, u, labels, _ = to(device, drawn(23))
    labels[2] = 23
    assert row_statistics(z, u, labels).cross_entropy.isnan().tolist() == [False, False, True]
    assert teacher_row_statistics(u, labels)[1].isnan().tolist() == [False, False, True]


def test_logits_that_are_not_numbers_stay_visible(device: str) -> None:
    z, u, labels, weights = to(device, drawn(4500))
    z[0, 17] = float("nan")
    gradient, statistics = row_gradient(z, u, labels, weights)
    assert statistics.reverse_kl.isnan().tolist() == [True, False, False]
    assert bool(gradient[0].isnan().all()) and not bool(gradient[2].isnan().any())


def test_no_rows_give_nothing(device: str) -> None:
    rows = to(device, drawn(23, rows=4))
    z, u, labels = (tensor[:0] for tensor in rows[:3])
    gradient, statistics = row_gradient(z, u, labels, RowWeights(*(factor[:0] for factor in rows.weights)))
    assert gradient.shape == (0, 23) and all(column.shape == (0,) for column in statistics)
    assert all(column.shape == (0,) for column in teacher_row_statistics(u, labels))
