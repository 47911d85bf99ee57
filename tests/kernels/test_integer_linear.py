"""Products of codes against float64: exact sums, scaled and added in float32."""

from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from edgerazor.kernels import dispatch, integer_linear
from edgerazor.kernels.divergence import RowWeights
from edgerazor.kernels.fused_linear import TeacherLogits, fused_linear_distillation
from edgerazor.kernels.integer_linear import CodedMatrix, CodedOperands
from edgerazor.kernels.projection import Projection
from edgerazor.kernels.reference import dequantize

CPU = torch.device("cpu")


def drawn(rows: int, groups: int, size: int, *, seed: int, highest: int = 127) -> CodedMatrix:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(-highest - 1, highest + 1, (rows, groups * size), dtype=torch.int8, generator=generator)
    return CodedMatrix(codes, torch.rand(rows, groups, generator=generator) + 0.01)


def values(matrix: CodedMatrix) -> Tensor:
    """Exact, in float64."""
    size = matrix.codes.shape[1] // matrix.scale.shape[1]
    return matrix.codes.double() * matrix.scale.double().repeat_interleave(size, dim=1)


def assert_exact(found: Tensor, operands: CodedOperands, bias: Tensor | None = None) -> None:
    """Within a few roundings of the largest sum of magnitudes."""
    x, weight = values(operands.x), values(operands.weight)
    exact = x @ weight.t() + (0 if bias is None else bias.double())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-6 * float((x.abs() @ weight.abs().t()).max()))


@given(
    rows=st.integers(1, 9),
    outputs=st.integers(1, 40),
    groups=st.sampled_from([(1, 1), (2, 2), (1, 3), (4, 2), (6, 1)]),
    size=st.sampled_from([1, 8, 33, 256]),
    tile=st.sampled_from([1, 50, 2**19]),
    with_bias=st.booleans(),
)
def test_the_product_is_the_one_of_float64(
    rows: int, outputs: int, groups: tuple[int, int], size: int, tile: int, with_bias: bool
) -> None:
    of_x, of_weight = groups
    columns = size * max(groups)
    x = drawn(rows, of_x, columns // of_x, seed=rows)
    weight = drawn(outputs, of_weight, columns // of_weight, seed=outputs)
    bias = torch.linspace(-1, 1, outputs) if with_bias else None
    with patch.object(integer_linear, "TILE_ELEMENTS", tile):
        found = integer_linear.integer_linear(CodedOperands(x, weight), bias)
    assert_exact(found, CodedOperands(x, weight), bias)


def test_the_largest_codes_do_not_overflow() -> None:
    lowest = CodedMatrix(torch.full((3, 4096), -128, dtype=torch.int8), torch.ones(3, 1))
    found = integer_linear.integer_linear(CodedOperands(lowest, lowest))
    assert torch.equal(found, torch.full((3, 3), 128.0 * 128 * 4096))


def test_float16_scales_and_a_place_for_the_result() -> None:
    x, weight = drawn(5, 2, 256, seed=0), drawn(7, 2, 256, seed=1, highest=1)
    weight = weight._replace(scale=weight.scale.half())
    out = torch.zeros(5, 7)
    assert integer_linear.integer_linear(CodedOperands(x, weight), out=out) is out
    assert_exact(out, CodedOperands(x, weight))


def test_a_nan_in_a_scale_reaches_its_row_alone() -> None:
    x, weight = drawn(4, 1, 256, seed=0), drawn(6, 1, 256, seed=1)
    x.scale[2] = torch.nan
    found = integer_linear.integer_linear(CodedOperands(x, weight))
    assert bool(found[2].isnan().all()) and bool(found[[0, 1, 3]].isfinite().all())


@pytest.mark.parametrize(
    ("columns", "sizes", "dtype", "device"),
    [
        (512, (256, 32), torch.float32, CPU),
        (512, (128, 128), torch.float32, CPU),
        (128, (None, None), torch.float32, CPU),
        (1536, (512, 768), torch.float32, CPU),
        (512, (256, 256), torch.float64, CPU),
        (512, (256, 256), torch.float32, torch.device("cuda")),
    ],
)
def test_small_groups_other_dtypes_and_other_devices_multiply_values(
    columns: int, sizes: tuple[int | None, ...], dtype: torch.dtype, device: torch.device
) -> None:
    assert not dispatch.multiplies_codes(columns, sizes, dtype, device)


def test_the_reference_multiplies_values(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (1536, (256, None), torch.bfloat16, CPU)
    assert dispatch.multiplies_codes(*arguments) == integer_linear.multiplies_codes(*arguments)
    monkeypatch.setenv(dispatch.SETTING, "reference")
    assert not dispatch.multiplies_codes(*arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk", [3, 64])
def test_a_loss_from_codes_has_the_value_and_gradients_of_values(dtype: torch.dtype, chunk: int) -> None:
    rows, vocabulary, groups = 11, 50, 2
    operands = CodedOperands(drawn(rows, groups, 256, seed=0), drawn(vocabulary, groups, 256, seed=1, highest=7))
    hidden, weight = (dequantize(*one, torch.float32) / scale for one, scale in zip(operands, (999, 9), strict=True))
    operands = CodedOperands(
        *(one._replace(scale=one.scale / scale) for one, scale in zip(operands, (999, 9), strict=True))
    )
    leaves = [one.to(dtype).requires_grad_(True) for one in (hidden, weight)]
    bias = torch.linspace(-1, 1, vocabulary)
    labels = torch.arange(rows) % vocabulary
    weights = RowWeights(*torch.rand(3, rows, generator=torch.Generator().manual_seed(2)))
    teacher = TeacherLogits(Projection(hidden.flip(0), weight), chunk)
    found, expected = (
        fused_linear_distillation(Projection(*leaves, bias, codes), teacher, labels, weights)[0]
        for codes in (operands, None)
    )
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    for one, other in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * float(other.abs().max()))
