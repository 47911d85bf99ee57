"""Cosines of rows against float64, from torch and from the Triton kernel."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from edgerazor.kernels import similarity

pytest.importorskip("triton")
from edgerazor.kernels.triton import similarity as kernels


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    a, b = torch.randn(2, *shape, generator=torch.Generator().manual_seed(shape[-1]))
    return a.to(dtype), (a + 0.1 * b).to(dtype)


@pytest.mark.parametrize("shape", [(2, 3, 64), (5, 1), (3, 1500), (1, 2048), (0, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_cosine_is_the_one_of_float64(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
    a, b = drawn(*shape, dtype=dtype)
    exact = functional.cosine_similarity(a.double(), b.double(), dim=-1)
    found = kernels.row_cosine(a.to(device), b.to(device)).cpu()
    for result in (found, similarity.row_cosine(a, b)):
        assert result.dtype == torch.float32 and result.shape == shape[:-1]
        torch.testing.assert_close(result.double(), exact, rtol=1e-6, atol=1e-6)


def test_rows_may_lie_apart(device: str) -> None:
    a, b = (rows.to(device) for rows in drawn(2, 8, 64))
    found = kernels.row_cosine(a[:, ::2], b[:, 1::2])
    torch.testing.assert_close(found, similarity.row_cosine(a[:, ::2], b[:, 1::2]), rtol=1e-6, atol=1e-6)


def test_a_row_of_zeros_is_like_nothing_and_a_nan_stays(device: str) -> None:
    a, b = (rows.to(device) for rows in drawn(3, 64))
    a[0], b[1, 5] = 0, torch.nan
    found = kernels.row_cosine(a, b)
    assert float(found[0]) == 0 and bool(found[1].isnan()) and bool(found[2].isfinite())
