"""What a quantized tensor says of itself (METHOD 1.1 and 2.4)."""

import pytest
import torch

from edgerazor.core.tensor import QuantizedTensor, mean_bits, nominal_bits


def tensor(codes: list[list[int]], qmax: torch.Tensor | list[int], group_size: int = 2) -> QuantizedTensor:
    held = torch.tensor(codes, dtype=torch.int8)
    scale = torch.full((len(codes), held.shape[-1] // group_size), 0.5, dtype=torch.float16)
    return QuantizedTensor(held, scale, torch.as_tensor(qmax, dtype=torch.int8), group_size)


def test_values_are_codes_times_the_scale_of_their_group() -> None:
    codes = torch.arange(-6, 6, dtype=torch.int8).reshape(2, 6)
    scale = torch.tensor([[0.5, 1.0, 2.0], [0.25, 4.0, 8.0]], dtype=torch.float16)
    value = QuantizedTensor(codes, scale, torch.tensor([7, 7], dtype=torch.int8), 2).dequantize()
    for row in range(2):
        for column in range(6):
            assert float(value[row, column]) == int(codes[row, column]) * float(scale[row, column // 2])


def test_an_activation_keeps_its_axes() -> None:
    codes = torch.ones(2, 3, 5, 8, dtype=torch.int8)
    held = QuantizedTensor(codes, torch.ones(2, 3, 5, 2), torch.full((30,), 127, dtype=torch.int8), 4)
    assert held.dequantize(torch.bfloat16).shape == codes.shape
    assert held.rows_by_bits() == {8.0: 30}


@pytest.mark.parametrize(
    ("qmax", "symmetric", "bits"),
    [(1, True, 1.58), (1, False, 2), (3, True, 3), (7, True, 4), (7, False, 4), (12, True, 5), (127, True, 8)],
)
def test_nominal_bits(qmax: int, symmetric: bool, bits: float) -> None:
    assert nominal_bits(qmax, symmetric) == bits


@pytest.mark.parametrize(("high", "bits"), [(0, 1.58), (1, 1.8825), (4, 2.79), (8, 4)])
def test_mean_bits_of_a_mixed_matrix(high: int, bits: float) -> None:
    assert mean_bits({qmax: rows for qmax, rows in ((1, 8 - high), (7, high)) if rows}) == pytest.approx(bits)


def test_rows_are_counted_at_their_widest_group() -> None:
    mixed = tensor([[1, 0, 7, -3], [0, 1, 1, 0], [5, 5, 5, 5]], [[1, 7], [1, 1], [7, 7]])
    assert mixed.widest_qmax().tolist() == [7, 1, 7]
    assert mixed.rows_by_bits() == {1.58: 1, 4.0: 2}
    assert mixed.bits_per_weight() == pytest.approx((3 * 4 + 3 * 1.58) / 6 + 16 / 2)


@pytest.mark.parametrize(
    ("codes", "qmax", "symmetric"),
    [
        ([[7, -7, 0, 1]], [7], True),
        ([[7, -8, 0, 1]], [7], False),
        ([[1, 0, -1, 0]], [1], True),
        ([[1, 0, -2, 0]], [1], False),
        ([[1, 0, -7, 0]], [[1, 7]], True),
        ([[-2, 0, -7, 0]], [[1, 7]], False),
    ],
)
def test_one_code_below_minus_qmax_makes_it_asymmetric(
    codes: list[list[int]], qmax: list[int], symmetric: bool
) -> None:
    assert tensor(codes, qmax).symmetric == symmetric
