"""The weights to round give, on the inputs that there are, what the 16-bit model gives on its own."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgerazor.calibrate.inputs import InputMoments, damped


def draw(seed: int, error: float, tokens: int = 100, columns: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    """A weight, the inputs of the 16-bit model and those of a rounded one."""
    generator = torch.Generator().manual_seed(seed)
    wanted = torch.randn(tokens, columns, generator=generator)
    own = wanted + error * torch.randn(tokens, columns, generator=generator) @ torch.randn(
        columns, columns, generator=generator
    )
    return torch.randn(5, columns, generator=generator), wanted, own


def moments_of(own: Tensor, wanted: Tensor, parts: int = 1) -> InputMoments:
    moments = InputMoments()
    for some, reference in zip(own.chunk(parts), wanted.chunk(parts), strict=True):
        moments.add(some, reference)
    return moments


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.1, 0.5]), st.integers(1, 4))
def test_no_weight_comes_closer(seed: int, error: float, parts: int) -> None:
    """Of the squared error with the damping, which holds the weight where it was, no direction leads down."""
    weight, wanted, own = draw(seed, error)
    found = moments_of(own, wanted, parts).matched(weight).double()
    rest = damped(own.T @ own) - (own.T @ own).double()

    def cost(tried: Tensor) -> Tensor:
        miss = own.double() @ tried.T - wanted.double() @ weight.double().T
        change = tried - weight.double()
        return miss.square().sum() + ((change @ rest) * change).sum()

    least = cost(found)
    assert least <= cost(weight.double())
    for direction in torch.randn(4, *weight.shape, generator=torch.Generator().manual_seed(seed + 1)):
        assert cost(found + 1e-2 * direction) > least


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_weight_with_the_inputs_of_the_model_stays(seed: int) -> None:
    weight, wanted, _ = draw(seed, 0.1)
    assert torch.equal(moments_of(wanted, wanted).matched(weight), weight)


def test_columns_without_input_stay() -> None:
    weight, wanted, own = draw(0, 0.1)
    own[:, 3] = 0.0
    found = moments_of(own, wanted).matched(weight)
    assert torch.isfinite(found).all()
    assert torch.equal(found[:, 3], weight[:, 3])
