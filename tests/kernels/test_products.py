"""Products of half-precision operands: rounded once, whatever the processor has instructions for."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from edgerazor.kernels import products

HALVES = [torch.bfloat16, torch.float16]


def drawn(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(shape[-1])).to(dtype)


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_gives_the_exact_sum_rounded_to_its_dtype(dtype: torch.dtype, bias: bool) -> None:
    x, weight, shift = (drawn(*shape, dtype=dtype) for shape in ((3, 5, 64), (24, 64), (24,)))
    found = products.linear(x, weight, shift if bias else None)
    exact = functional.linear(x.double(), weight.double(), shift.double() if bias else None)
    unit = torch.finfo(dtype).eps
    assert found.dtype == dtype
    torch.testing.assert_close(
        found.double(), exact, rtol=unit, atol=1000 * max(torch.finfo(torch.float32).eps, unit**2)
    )


@pytest.mark.parametrize("dtype", HALVES)
def test_a_product_in_float32_is_not_rounded_to_its_operands_where_they_are_emulated(dtype: torch.dtype) -> None:
    a, b = drawn(7, 96, dtype=dtype), drawn(96, 5, dtype=dtype)
    found = products.matrix_product(a, b, torch.float32)
    exact = a.double() @ b.double()
    widened = products.emulated(dtype, torch.device("cpu"))
    assert found.dtype == torch.float32
    tolerance = torch.finfo(torch.float32 if widened else dtype).eps
    torch.testing.assert_close(found.double(), exact, rtol=tolerance, atol=100 * tolerance)
    assert products.matrix_product(a, b, dtype).dtype == dtype


def test_only_half_precisions_of_a_processor_are_emulated() -> None:
    for dtype in (torch.float32, torch.float64):
        assert not products.emulated(dtype, torch.device("cpu"))
    for dtype in HALVES:
        assert not products.emulated(dtype, torch.device("cuda"))


@pytest.mark.skipif(not hasattr(torch.cpu, "get_capabilities"), reason="this torch does not tell")
def test_a_processor_with_instructions_uses_them() -> None:
    capabilities = torch.cpu.get_capabilities()
    if capabilities["architecture"] != "x86_64":
        pytest.skip("names of another architecture")
    has = bool(capabilities["avx512_bf16"] or capabilities["amx_bf16"])
    assert products.emulated(torch.bfloat16, torch.device("cpu")) != has
