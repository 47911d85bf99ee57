"""The gradient of given scales: the published formula in float64, and the same from every implementation."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgerazor.kernels import dispatch, reference
from edgerazor.kernels.reference import GroupRule
from edgerazor.kernels.scale_gradient import _TILE_OF_A_THREAD, scale_gradient

SCALE_DTYPES: tuple[reference.ScaleDtype, ...] = ("float16", "float16_bfloat16", "float32")
SPECIAL = [0.0, -0.0, 1e-40, 3e38, float("inf"), -float("inf"), float("nan")]


class Drawn:
    """A rule, what it rounds and the gradient of the values; some numbers lie exactly on bounds and ties.

    The first column of each group is a NaN, an infinity or a zero where that is drawn.
    """

    def __init__(self, seed: int, shape: tuple[int, int, int], widths: str, symmetric: bool, scale_dtype: Any):
        rows, groups, size = shape
        generator = torch.Generator().manual_seed(seed)
        raw = 2.0 ** torch.randint(-16, 4, (rows, groups), generator=generator)
        raw = reference.round_scale(
            torch.where(torch.rand(raw.shape, generator=generator) < 0.5, raw, 1.3 * raw), scale_dtype
        )
        choice = torch.tensor([1, 7, 127], dtype=torch.int8)
        drawn = choice[torch.randint(0, 3, (rows, groups), generator=generator)]
        qmax = {"one": int(drawn[0, 0]), "rows": drawn[:, 0], "groups": drawn}[widths]
        scale = raw.to(reference.stored_dtype(scale_dtype))
        self.rule = GroupRule("given" if symmetric else "given_asymmetric", qmax, scale_dtype=scale_dtype, given=scale)
        steps = 1.5 * drawn.unsqueeze(-1) * torch.randn(rows, groups, size, generator=generator)
        steps = torch.where(torch.rand(steps.shape, generator=generator) < 0.3, (2 * steps).round() / 2, steps)
        self.x = (steps * raw.unsqueeze(-1)).reshape(rows, -1)
        self.gradient = torch.randn(self.x.shape, generator=generator)
        self.size = size

    def expected(self) -> tuple[Tensor, Tensor]:
        """In float64, value by value; and the sum of magnitudes, which the rounding of sums goes with."""
        assert self.rule.given is not None
        rows, groups = self.rule.given.shape
        qmax = torch.as_tensor(self.rule.qmax).double()
        qmax = qmax.reshape(-1, 1, 1) if qmax.ndim < 2 else qmax.unsqueeze(-1)
        lowest = -qmax - int(self.rule.scale == "given_asymmetric")
        # As float32 divides: which side of a bound a quotient lies on is part of the definition.
        steps = (self.x.reshape(rows, groups, -1) / self.rule.given.float().unsqueeze(-1)).double()
        slope = torch.where(steps > qmax, qmax, torch.where(steps < lowest, lowest, steps.round() - steps))
        terms = self.gradient.double().reshape(steps.shape) * slope
        return terms.sum(dim=-1), terms.abs().sum(dim=-1)

    def check(self, found: Tensor) -> None:
        expected, magnitude = self.expected()
        assert found.dtype == torch.float32 and found.shape == expected.shape
        assert torch.equal(found.isnan(), expected.isnan())
        assert bool(((found - expected).abs() <= 1e-6 * magnitude + 1e-30).where(~expected.isnan(), True).all())


draws = st.builds(
    Drawn,
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 3), st.sampled_from([1, 8, 33])),
    widths=st.sampled_from(["one", "rows", "groups"]),
    symmetric=st.booleans(),
    scale_dtype=st.sampled_from(SCALE_DTYPES),
)
places = st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(SPECIAL)), max_size=4)


@given(drawn=draws, special=places)
def test_it_is_the_formula(drawn: Drawn, special: list[tuple[int, float]]) -> None:
    for place, value in special:
        drawn.x.view(-1)[place % drawn.x.numel()] = value
    drawn.check(scale_gradient(drawn.x, drawn.gradient, drawn.rule, drawn.size))


@given(drawn=draws, special=places)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered:RuntimeWarning")
def test_tritons_is_the_formula(drawn: Drawn, special: list[tuple[int, float]], device: str) -> None:
    pytest.importorskip("triton")
    from edgerazor.kernels.triton import scale_gradient as kernel

    for place, value in special:
        drawn.x.view(-1)[place % drawn.x.numel()] = value
    assert drawn.rule.given is not None
    qmax = drawn.rule.qmax.to(device) if isinstance(drawn.rule.qmax, Tensor) else drawn.rule.qmax
    rule = drawn.rule._replace(given=drawn.rule.given.to(device), qmax=qmax)
    x, gradient = drawn.x.to(device), drawn.gradient.to(device)
    drawn.check(kernel.scale_gradient(x, gradient, rule, drawn.size).cpu())
    assert kernel.scale_gradient(x[:0], gradient[:0], rule, drawn.size).shape == (0, drawn.rule.given.shape[1])


@pytest.mark.parametrize("widths", ["one", "rows", "groups"])
def test_more_than_a_tile_is_the_formula(widths: str) -> None:
    tile = torch.get_num_threads() * _TILE_OF_A_THREAD
    drawn = Drawn(0, (tile // 96 + 7, 3, 32), widths, False, "float16")
    drawn.check(scale_gradient(drawn.x, drawn.gradient, drawn.rule, 32))
    whole = Drawn(1, (3, 1, tile + 5), widths, True, "float32")
    whole.check(scale_gradient(whole.x, whole.gradient, whole.rule, None))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_are_taken_as_float32(dtype: torch.dtype) -> None:
    drawn = Drawn(2, (5, 2, 16), "rows", True, "float16")
    x, gradient = drawn.x.to(dtype), drawn.gradient.to(dtype)
    found = dispatch.scale_gradient(x, gradient, drawn.rule, 16)
    torch.testing.assert_close(found, scale_gradient(x.float(), gradient.float(), drawn.rule, 16), rtol=1e-6, atol=1e-5)
