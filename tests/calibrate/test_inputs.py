"""The weights to round give, on the inputs that there are, what the 16-bit model gives on its own."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgerazor.calibrate.inputs import InputMoments, Inputs, damped


def draw(seed: int, error: float, tokens: int = 100, columns: int = 12) -> tuple[Tensor, Inputs, Inputs]:
    """A weight, the inputs of a rounded model and those of the 16-bit one; both with what the output is added to."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    wanted, residual = normal(tokens, columns), normal(tokens, 5)
    own = wanted + error * normal(tokens, columns) @ normal(columns, columns)
    weight = normal(5, columns)
    return weight, Inputs(own, residual + error * normal(tokens, 5)), Inputs(wanted, residual)


def without_residual(inputs: Inputs) -> Inputs:
    return Inputs(inputs.rows)


def moments_of(weight: Tensor, own: Inputs, wanted: Inputs, parts: int = 1) -> InputMoments:
    moments = InputMoments(None if own.residual is None else weight)
    for some, reference in zip(_parts(own, parts), _parts(wanted, parts), strict=True):
        moments.add(some, reference)
    return moments


def _parts(inputs: Inputs, count: int) -> list[Inputs]:
    residuals = [None] * count if inputs.residual is None else inputs.residual.chunk(count)
    return [Inputs(*both) for both in zip(inputs.rows.chunk(count), residuals, strict=True)]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.1, 0.5]), st.sampled_from([1, 2, 4]), st.booleans())
def test_no_weight_comes_closer(seed: int, error: float, parts: int, residual: bool) -> None:
    """Of the squared error with the damping, which holds the weight where it was, no direction leads down."""
    weight, own, wanted = draw(seed, error)
    if not residual:
        own, wanted = without_residual(own), without_residual(wanted)
    given, moments = moments_of(weight, own, wanted, parts), own.rows.T @ own.rows
    found = given.matched(weight).double()
    rest = damped(moments, given.damping) - moments.double()

    def output(inputs: Inputs, tried: Tensor) -> Tensor:
        product = inputs.rows.double() @ tried.T
        return product if inputs.residual is None else product + inputs.residual.double()

    def cost(tried: Tensor) -> Tensor:
        change = tried - weight.double()
        miss = output(own, tried) - output(wanted, weight.double())
        return miss.square().sum() + ((change @ rest) * change).sum()

    least = cost(found)
    assert least <= cost(weight.double())
    for direction in torch.randn(4, *weight.shape, generator=torch.Generator().manual_seed(seed)):
        assert cost(found + 1e-2 * direction) > least


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_weight_with_the_inputs_of_the_model_stays(seed: int) -> None:
    weight, _, wanted = draw(seed, 0.1)
    assert torch.equal(moments_of(weight, wanted, wanted).matched(weight), weight)
    assert torch.equal(moments_of(weight, *2 * (without_residual(wanted),)).matched(weight), weight)


def test_columns_without_input_stay() -> None:
    weight, own, wanted = draw(0, 0.1)
    own.rows[:, 3] = 0.0
    found = moments_of(weight, own, wanted).matched(weight)
    assert torch.isfinite(found).all()
    assert torch.equal(found[:, 3], weight[:, 3])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([5, 384, 385, 900]), st.integers(1, 3))
def test_moments_are_those_of_all_rows(seed: int, columns: int, parts: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(50, columns, generator=generator)
    own = moments_of(rows, Inputs(rows), Inputs(rows), parts).own
    torch.testing.assert_close(own.double(), rows.double().T @ rows.double(), rtol=1e-5, atol=1e-4)
    assert torch.equal(own, own.T)


def test_chance_changes_little() -> None:
    """Errors that have nothing to do with the inputs tell nothing, however few tokens there are to learn them by."""
    changes = []
    for tokens in (20, 200, 2000):
        weight, own, wanted = draw(1, 0.0, tokens=tokens)
        own = Inputs(own.rows, torch.randn(tokens, 5, generator=torch.Generator().manual_seed(2)))
        changes.append(float((moments_of(weight, own, wanted).matched(weight) - weight).norm() / weight.norm()))
    assert max(changes) < 0.1
    assert changes[1] > 1.5 * changes[2]
