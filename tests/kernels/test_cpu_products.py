"""Products on a CPU against float64, on whatever processor: of codes, and of half-precision operands."""

from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from edgerazor.kernels import cpu_products, dispatch
from edgerazor.kernels.cpu_products import CodedMatrix, CodedOperands, emulated, integer_linear
from edgerazor.kernels.divergence import RowWeights
from edgerazor.kernels.fused_linear import TeacherLogits, fused_linear_distillation
from edgerazor.kernels.processor import Processor
from edgerazor.kernels.projection import Projection
from edgerazor.kernels.reference import dequantize
from tests.processors import PROCESSORS, name

CPU = torch.device("cpu")
HALVES = [torch.bfloat16, torch.float16]


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
    with patch.object(cpu_products, "TILE_ELEMENTS", tile):
        found = integer_linear(CodedOperands(x, weight), bias)
    assert_exact(found, CodedOperands(x, weight), bias)


def test_the_largest_codes_do_not_overflow() -> None:
    lowest = CodedMatrix(torch.full((3, 4096), -128, dtype=torch.int8), torch.ones(3, 1))
    found = integer_linear(CodedOperands(lowest, lowest))
    assert torch.equal(found, torch.full((3, 3), 128.0 * 128 * 4096))


def test_float16_scales_and_a_place_for_the_result() -> None:
    x, weight = drawn(5, 2, 256, seed=0), drawn(7, 2, 256, seed=1, highest=1)
    weight = weight._replace(scale=weight.scale.half())
    out = torch.zeros(5, 7)
    assert integer_linear(CodedOperands(x, weight), out=out) is out
    assert_exact(out, CodedOperands(x, weight))


def test_a_nan_in_a_scale_reaches_its_row_alone() -> None:
    x, weight = drawn(4, 1, 256, seed=0), drawn(6, 1, 256, seed=1)
    x.scale[2] = torch.nan
    found = integer_linear(CodedOperands(x, weight))
    assert bool(found[2].isnan().all()) and bool(found[[0, 1, 3]].isfinite().all())


@given(
    rows=st.sampled_from([1, 2, 17, 64]),
    outputs=st.sampled_from([1, 3, 16, 100]),
    columns=st.sampled_from([1, 7, 33, 256, 2048]),
    lowest=st.booleans(),
)
def test_sums_of_codes_are_exact_without_the_instruction(rows: int, outputs: int, columns: int, lowest: bool) -> None:
    """Some processors without VNNI have instructions that saturate; codes at both ends would show it."""
    generator = torch.Generator().manual_seed(rows)
    x, weight = (
        torch.where(torch.rand(count, columns, generator=generator) < 0.5, -128, -128 if lowest else 127).to(torch.int8)
        for count in (rows, outputs)
    )
    operands = CodedOperands(CodedMatrix(x, torch.ones(rows, 1)), CodedMatrix(weight, torch.ones(outputs, 1)))
    found = integer_linear(operands)
    assert torch.equal(found, (x.double() @ weight.double().t()).float())


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
    assert not any(dispatch.multiplies_codes(columns, sizes, dtype, device, processor) for processor in PROCESSORS)


@pytest.mark.parametrize("processor", PROCESSORS, ids=name)
def test_a_processor_multiplies_codes_if_it_can_and_half_precision_is_no_faster(
    processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(dispatch.SETTING, raising=False)

    def multiplies(dtype: torch.dtype) -> bool:
        return dispatch.multiplies_codes(1536, (256, None), dtype, CPU, processor)

    assert multiplies(torch.float32) == processor.vnni
    assert multiplies(torch.bfloat16) == (processor.vnni and not processor.bfloat16)
    assert multiplies(torch.float16) == (processor.vnni and not processor.float16)
    monkeypatch.setenv(dispatch.SETTING, "reference")
    assert not any(multiplies(dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16))


def test_only_half_precisions_of_a_processor_are_emulated() -> None:
    assert [emulated(torch.bfloat16, CPU, processor) for processor in PROCESSORS] == [True, True, False, False]
    for processor in PROCESSORS:
        for dtype in (torch.float32, torch.float64):
            assert not emulated(dtype, CPU, processor)
        for dtype in HALVES:
            assert not emulated(dtype, torch.device("cuda"), processor)


def random(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(shape[-1])).to(dtype)


@pytest.mark.parametrize("processor", PROCESSORS, ids=name)
@pytest.mark.parametrize("dtype", [*HALVES, torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_gives_the_exact_sum_rounded_to_its_dtype(dtype: torch.dtype, bias: bool, processor: Processor) -> None:
    x, weight, shift = (random(*shape, dtype=dtype) for shape in ((3, 5, 64), (24, 64), (24,)))
    found = cpu_products.linear(x, weight, shift if bias else None, processor)
    exact = functional.linear(x.double(), weight.double(), shift.double() if bias else None)
    unit = torch.finfo(dtype).eps
    assert found.dtype == dtype
    torch.testing.assert_close(
        found.double(), exact, rtol=unit, atol=1000 * max(torch.finfo(torch.float32).eps, unit**2)
    )


@pytest.mark.parametrize("processor", PROCESSORS, ids=name)
@pytest.mark.parametrize("dtype", HALVES)
def test_a_product_in_float32_is_not_rounded_to_its_operands_where_they_are_emulated(
    dtype: torch.dtype, processor: Processor
) -> None:
    a, b = random(7, 96, dtype=dtype), random(96, 5, dtype=dtype)
    found = cpu_products.matrix_product(a, b, torch.float32, processor)
    exact = a.double() @ b.double()
    widened = emulated(dtype, CPU, processor)
    assert found.dtype == torch.float32
    tolerance = torch.finfo(torch.float32 if widened else dtype).eps
    torch.testing.assert_close(found.double(), exact, rtol=tolerance, atol=100 * tolerance)
    assert cpu_products.matrix_product(a, b, dtype, processor).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk", [3, 64])
def test_a_loss_from_codes_has_the_value_and_gradients_of_values(dtype: torch.dtype, chunk: int) -> None:
    rows, vocabulary, groups = 11, 50, 2
    drawn_x, drawn_weight = drawn(rows, groups, 256, seed=0), drawn(vocabulary, groups, 256, seed=1, highest=7)
    x, weight = (
        matrix._replace(scale=matrix.scale / divisor) for matrix, divisor in ((drawn_x, 999), (drawn_weight, 9))
    )
    hidden, head = (dequantize(*matrix, torch.float32) for matrix in (x, weight))
    leaves = [values.to(dtype).requires_grad_(True) for values in (hidden, head)]
    bias = torch.linspace(-1, 1, vocabulary)
    labels = torch.arange(rows) % vocabulary
    weights = RowWeights(*torch.rand(3, rows, generator=torch.Generator().manual_seed(2)))
    teacher = TeacherLogits(Projection(hidden.flip(0), head), chunk)
    found, expected = (
        fused_linear_distillation(Projection(*leaves, bias, codes), teacher, labels, weights)[0]
        for codes in (CodedOperands(x, weight), None)
    )
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    for ours, theirs in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * float(theirs.abs().max()))
