"""From hidden states to loss and gradients in chunks, against plain autograd (KERNELS 2.4 and 2.5)."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from edgerazor.kernels.divergence import RowWeights, row_statistics
from edgerazor.kernels.fused_linear import (
    TeacherLogits,
    fused_linear_distillation,
    fused_linear_statistics,
    logits_distillation,
    logits_teacher_statistics,
    teacher_statistics,
)
from edgerazor.kernels.projection import Projection, chunk_rows
from tests.kernels import oracle

ROWS, HIDDEN, TEACHER_HIDDEN, VOCABULARY = 13, 8, 6, 37
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}


def projection(hidden: int, *, dtype: torch.dtype, bias: bool, seed: int) -> Projection:
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    return Projection(drawn(ROWS, hidden), drawn(VOCABULARY, hidden), drawn(VOCABULARY) if bias else None)


def drawn_rows(dtype: torch.dtype) -> tuple[Tensor, RowWeights]:
    generator = torch.Generator().manual_seed(7)
    labels = torch.randint(0, VOCABULARY, (ROWS,), generator=generator)
    labels[2::5] = -100
    return labels, RowWeights(*torch.rand(3, ROWS, generator=generator, dtype=torch.float64).to(dtype))


def leaves(projection: Projection) -> list[Tensor]:
    return [part.requires_grad_(True) for part in projection if part is not None]


def expected(student: Projection, teacher: Projection | None, temperature: float) -> tuple[Tensor, list[Tensor]]:
    """Value and gradients by autograd in float64."""
    exact = Projection(*(None if part is None else part.detach().double() for part in student))
    inputs = leaves(exact)
    labels, weights = drawn_rows(torch.float64)
    z = torch.nn.functional.linear(*exact[:3])
    value = (weights.cross_entropy * oracle.cross_entropy(z, labels)).sum()
    if teacher is not None:
        u = torch.nn.functional.linear(*(None if part is None else part.double() for part in teacher[:3]))
        value = value + (weights.forward_kl * oracle.forward_kl(z, u, temperature)).sum()
        value = value + (weights.reverse_kl * oracle.reverse_kl(z, u, temperature)).sum()
    return value.detach(), list(torch.autograd.grad(value, inputs))


def assert_close(found: Tensor, exact: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(found.double(), exact, rtol=tolerance, atol=tolerance * float(exact.abs().max()))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("chunk", [1, 5, 64])
@pytest.mark.parametrize(("temperature", "bias", "keep_bytes"), [(1.0, False, 0), (2.5, True, 1 << 20), (0.4, True, 0)])
def test_value_and_gradients_do_not_depend_on_chunks(
    dtype: torch.dtype, chunk: int, temperature: float, bias: bool, keep_bytes: int
) -> None:
    student = projection(HIDDEN, dtype=dtype, bias=bias, seed=0)
    teacher = projection(TEACHER_HIDDEN, dtype=dtype, bias=bias, seed=1)
    labels, weights = drawn_rows(dtype)
    inputs = leaves(student)
    value, statistics = fused_linear_distillation(
        student, TeacherLogits(teacher, chunk, keep_bytes=keep_bytes), labels, weights, temperature=temperature
    )
    gradients = torch.autograd.grad(3 * value, inputs)
    exact, exact_gradients = expected(student, teacher, temperature)
    assert_close(value.detach(), exact, TOLERANCE[dtype])
    for gradient, other in zip(gradients, exact_gradients, strict=True):
        assert_close(gradient / 3, other, TOLERANCE[dtype])
    assert all(column.shape == (ROWS,) and not column.requires_grad for column in statistics)


def test_logits_kept_in_less_than_float32_are_the_same_in_both_passes() -> None:
    teacher = projection(TEACHER_HIDDEN, dtype=torch.float32, bias=True, seed=1)
    size = ROWS * len(teacher.weight) * 2
    kept = TeacherLogits(teacher, 5, keep_bytes=size, keep_dtype=torch.bfloat16)
    assert kept.keeps and not TeacherLogits(teacher, 5, keep_bytes=size - 1, keep_dtype=torch.bfloat16).keeps
    first, second = kept.rows(slice(5, 10)), kept.rows(slice(5, 10))
    assert first.dtype == torch.float32 and torch.equal(first, second)
    exact = TeacherLogits(teacher, 5, keep_bytes=0).rows(slice(5, 10))
    assert torch.equal(first, exact.bfloat16().float()) and not torch.equal(first, exact)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_without_a_teacher(dtype: torch.dtype) -> None:
    student = projection(HIDDEN, dtype=dtype, bias=True, seed=0)
    labels, weights = drawn_rows(dtype)
    inputs = leaves(student)
    value, _ = fused_linear_distillation(student, None, labels, weights)
    exact, exact_gradients = expected(student, None, 1.0)
    assert_close(value.detach(), exact, TOLERANCE[dtype])
    for gradient, other in zip(torch.autograd.grad(value, inputs), exact_gradients, strict=True):
        assert_close(gradient, other, TOLERANCE[dtype])


def test_bfloat16_rounds_the_gradient_of_the_logits_once() -> None:
    student = projection(HIDDEN, dtype=torch.bfloat16, bias=False, seed=0)
    teacher = projection(TEACHER_HIDDEN, dtype=torch.bfloat16, bias=False, seed=1)
    labels, weights = drawn_rows(torch.float32)
    inputs = leaves(student)
    value, _ = fused_linear_distillation(student, TeacherLogits(teacher, 64), labels, weights)
    exact, exact_gradients = expected(student, teacher, 1.0)
    assert value.dtype == torch.float32
    assert_close(value.detach(), exact, 2e-2)
    for gradient, other in zip(torch.autograd.grad(value, inputs), exact_gradients, strict=True):
        assert gradient.dtype == torch.bfloat16
        assert_close(gradient, other, 2e-2)


def test_bfloat16_rounds_the_operands_of_the_logits_and_nothing_else() -> None:
    student = projection(HIDDEN, dtype=torch.bfloat16, bias=True, seed=0)
    labels, _ = drawn_rows(torch.float32)
    logits = student.logits(slice(0, ROWS))
    exact = torch.nn.functional.linear(*(part.double() for part in student if part is not None))
    assert logits.dtype == torch.float32
    assert_close(logits, exact, 1e-6)
    found, _ = fused_linear_statistics(student, None, labels)
    assert_close(found.cross_entropy, oracle.cross_entropy(exact, labels).where(labels >= 0, 0.0), 1e-6)


@pytest.mark.parametrize("chunk", [1, 64])
def test_the_gradient_of_a_bfloat16_weight_is_summed_in_float32(chunk: int) -> None:
    """Its error is that of one rounding at the end, however many chunks there are."""
    rows = 1000
    generator = torch.Generator().manual_seed(0)
    hidden = torch.rand(rows, 2, generator=generator).bfloat16()
    weight = torch.randn(5, 2, generator=generator).bfloat16().requires_grad_(True)
    labels, factors = torch.zeros(rows, dtype=torch.long), torch.ones(rows)
    teacher = TeacherLogits(Projection(hidden, weight.detach()), chunk)
    value, _ = fused_linear_distillation(
        Projection(hidden, weight), teacher, labels, RowWeights(torch.zeros(rows), torch.zeros(rows), factors)
    )
    (gradient,) = torch.autograd.grad(value, weight)
    exact = weight.detach().double().requires_grad_(True)
    oracle.cross_entropy(hidden.double() @ exact.t(), labels).sum().backward()
    assert gradient.dtype == torch.bfloat16 and exact.grad is not None
    assert bool(((gradient.double() - exact.grad).abs() <= exact.grad.abs() * 2**-8).all())


def test_a_float16_head_is_refused() -> None:
    student = projection(HIDDEN, dtype=torch.float16, bias=False, seed=0)
    labels, weights = drawn_rows(torch.float32)
    with pytest.raises(ValueError, match="float16 head would underflow"):
        fused_linear_distillation(student, None, labels, weights)
    found, _ = fused_linear_statistics(student, TeacherLogits(student, 4), labels)
    assert bool((found.forward_kl.abs() < 1e-6).all())


def test_chunks_fit_the_device() -> None:
    assert chunk_rows(100_000, 2**15) == chunk_rows(100_000, 2**15, "cpu") == 512
    assert chunk_rows(100_000, 2**24) == 1 and chunk_rows(3, 37) == 3 and chunk_rows(0, 37) == 1
    assert [chunk_rows(100_000, vocabulary, "cuda") for vocabulary in (2**15, 50_000, 151_936)] == [4096, 2560, 1024]
    assert chunk_rows(300, 151_936, "cuda") == 300


@pytest.mark.parametrize("needed", [(True, False), (False, True)])
def test_only_the_gradients_asked_for(needed: tuple[bool, bool]) -> None:
    student = projection(HIDDEN, dtype=torch.float64, bias=False, seed=0)
    teacher = projection(TEACHER_HIDDEN, dtype=torch.float64, bias=False, seed=1)
    labels, weights = drawn_rows(torch.float64)
    for part, wanted in zip(student[:2], needed, strict=True):
        part.requires_grad_(wanted)
    value, _ = fused_linear_distillation(student, TeacherLogits(teacher, 4), labels, weights)
    value.backward()
    _, exact = expected(student, teacher, 1.0)
    for part, wanted, other in zip(student[:2], needed, exact, strict=True):
        assert (part.grad is not None) == wanted
        if part.grad is not None:
            assert_close(part.grad, other, 1e-9)


def test_no_rows_give_zero_and_zero_gradients() -> None:
    weight = torch.randn(VOCABULARY, HIDDEN, requires_grad=True)
    hidden = torch.empty(0, HIDDEN, requires_grad=True)
    teacher = TeacherLogits(Projection(torch.empty(0, HIDDEN), weight.detach()), chunk_rows(0, VOCABULARY))
    labels, nothing = torch.empty(0, dtype=torch.long), torch.empty(0)
    entropy, label = teacher_statistics(teacher, labels)
    assert entropy.shape == label.shape == (0,)
    for source in (teacher, None):
        value, statistics = fused_linear_distillation(
            Projection(hidden, weight), source, labels, RowWeights(nothing, nothing, nothing)
        )
        value.backward()
        assert float(value.detach()) == 0 and not bool(weight.grad.any()) and statistics.forward_kl.shape == (0,)
        weight.grad = None
    empty, agreement = fused_linear_statistics(Projection(hidden, weight), teacher, labels)
    assert empty.cross_entropy.shape == agreement.shape == (0,)


def test_statistics_without_gradients_are_those_of_the_logits() -> None:
    student = projection(HIDDEN, dtype=torch.float32, bias=True, seed=0)
    teacher = projection(TEACHER_HIDDEN, dtype=torch.float32, bias=True, seed=1)
    labels, _ = drawn_rows(torch.float32)
    found, agreement = fused_linear_statistics(student, TeacherLogits(teacher, 4), labels, temperature=2.0)
    z, u = (torch.nn.functional.linear(*side[:3]) for side in (student, teacher))
    for column, other in zip(found, row_statistics(z, u, labels, 2.0), strict=True):
        torch.testing.assert_close(column, other)
    assert torch.equal(agreement, z.argmax(dim=-1) == u.argmax(dim=-1))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_from_logits_that_exist(dtype: torch.dtype, temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    z, u = (torch.randn(2, ROWS, VOCABULARY, generator=generator, dtype=torch.float64) * 3).to(dtype)
    labels, weights = drawn_rows(dtype)
    z.requires_grad_(True)
    value, _ = logits_distillation(z, u, labels, weights, temperature=temperature)
    (gradient,) = torch.autograd.grad(2 * value, z)
    exact = z.detach().double().requires_grad_(True)
    _, doubled = drawn_rows(torch.float64)
    plain = (
        (doubled.forward_kl * oracle.forward_kl(exact, u.double(), temperature)).sum()
        + (doubled.reverse_kl * oracle.reverse_kl(exact, u.double(), temperature)).sum()
        + (doubled.cross_entropy * oracle.cross_entropy(exact, labels)).sum()
    )
    assert_close(value.detach(), plain.detach(), TOLERANCE[dtype])
    assert_close(gradient / 2, torch.autograd.grad(plain, exact)[0], TOLERANCE[dtype])
    entropy, _ = logits_teacher_statistics(u, labels)
    assert_close(entropy, oracle.entropy(u.double()), TOLERANCE[dtype])


def test_logits_of_ten_thousand_stay_finite() -> None:
    student = projection(HIDDEN, dtype=torch.float32, bias=False, seed=0)
    teacher = projection(TEACHER_HIDDEN, dtype=torch.float32, bias=False, seed=1)
    student = student._replace(hidden=student.hidden * 1e4)
    teacher = teacher._replace(hidden=teacher.hidden * 1e4)
    labels, weights = drawn_rows(torch.float32)
    inputs = leaves(student)
    value, _ = fused_linear_distillation(student, TeacherLogits(teacher, 5), labels, weights)
    assert float(value.detach()) > 1e4 and bool(torch.isfinite(value))
    assert all(bool(torch.isfinite(gradient).all()) for gradient in torch.autograd.grad(value, inputs))


def test_autocast_does_not_reach_inside() -> None:
    student = projection(HIDDEN, dtype=torch.float32, bias=False, seed=0)
    teacher = projection(TEACHER_HIDDEN, dtype=torch.float32, bias=False, seed=1)
    labels, weights = drawn_rows(torch.float32)

    def everything() -> list[Tensor]:
        entropy, label = teacher_statistics(TeacherLogits(teacher, 5), labels)
        value, rows = fused_linear_distillation(student, TeacherLogits(teacher, 5), labels, weights)
        plain, _ = fused_linear_statistics(student, TeacherLogits(teacher, 5), labels)
        return [entropy, label, value, *rows, *plain]

    outside = everything()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = everything()
    assert all(torch.equal(tensor, other) for tensor, other in zip(inside, outside, strict=True))


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation returned."""

    elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        sizes = (tensor.numel() for tensor in tree_leaves(result) if isinstance(tensor, Tensor))
        self.elements = max(self.elements, *sizes, 0)
        return result


@pytest.mark.slow
@pytest.mark.parametrize("with_teacher", [True, False])
def test_rows_times_vocabulary_never_exists(with_teacher: bool) -> None:
    rows, vocabulary, chunk = 600, 80_000, chunk_rows(600, 80_000)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, 2, generator=generator, requires_grad=True)
    weight = torch.randn(vocabulary, 2, generator=generator, requires_grad=True)
    factors = torch.full((rows,), 1 / rows)
    labels = torch.zeros(rows, dtype=torch.long)
    with Largest() as largest:
        teacher = TeacherLogits(Projection(hidden.detach(), weight.detach()), chunk, keep_bytes=0)
        teacher_statistics(teacher, labels)
        value, _ = fused_linear_distillation(
            Projection(hidden, weight), teacher if with_teacher else None, labels, RowWeights(factors, factors, factors)
        )
        value.backward()
    assert 1 < chunk < rows / 2
    assert largest.elements <= chunk * vocabulary < rows * vocabulary / 2
    assert weight.grad is not None and bool(weight.grad.any())
