"""The affine layout: what MLX dequantizes is codes times scales, for every width, in float32 to the bit."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("mlx_lm")

from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import ExportError
from edgerazor.plugins.exporters.mlx.engine import mx
from edgerazor.plugins.exporters.mlx.layout import choose_affine
from edgerazor.plugins.exporters.mlx.plan import Matrix
from edgerazor.plugins.exporters.mlx.write import affine_tensors

pytestmark = pytest.mark.mlx
GROUPS = {32: 32, 64: 64, 96: 32, 128: 128, 256: 128, 320: 64}
# kind of rows: (largest code of each kind, lowest code, bits, offset)
KINDS: dict[str, tuple[tuple[int, ...], int, int, int]] = {
    "ternary": ((1,), -1, 2, 1),
    "four levels": ((1,), -2, 2, 2),
    "int3": ((3,), -3, 3, 4),
    "int4": ((7,), -7, 4, 8),
    "sixteen levels": ((7,), -8, 4, 8),
    "int5": ((15,), -15, 5, 16),
    "int6": ((31,), -31, 6, 32),
    "int7": ((63,), -63, 8, 128),
    "int8": ((127,), -128, 8, 128),
    "ternary and int4": ((1, 7), -7, 4, 8),
}
# What MLX's arithmetic in half precision makes of a weight of 4 bits, in scales: docs/guide/engines.md.
LARGEST_ERRORS = {torch.float16: 0.0074, torch.bfloat16: 0.055}


@st.composite
def matrices(draw: Any, kind: str) -> QuantizedTensor:
    """Codes of the whole range, the lowest among them, and float16 scales of every size, subnormal ones included."""
    widths, lowest, _, _ = KINDS[kind]
    rows, groups, size = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.sampled_from(sorted(GROUPS)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    qmax = random.choice(widths, rows)
    qmax[0] = widths[-1]
    low = np.where(qmax == widths[-1], lowest, -qmax)[:, None]
    codes = random.integers(low, qmax[:, None] + 1, (rows, groups * size))
    codes[0, 0] = lowest
    bits = random.integers(0, 0x7C00, (rows, groups)).astype(np.uint16)  # every finite float16 from 0 up
    return QuantizedTensor(
        torch.from_numpy(codes.astype(np.int8)),
        torch.from_numpy(bits.view(np.float16)),
        torch.from_numpy(qmax.astype(np.int8)),
        size,
    )


def dequantized(value: QuantizedTensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """What MLX makes of the three tensors that are written."""
    affine, shape = choose_affine(value), (value.codes.shape[0], value.codes.shape[1])
    stored = affine_tensors(Matrix("m", "up", shape, affine, 4.0, False), value, dtype)
    assert {name: tuple(tensor.shape) for name, tensor in stored.items()} == {
        f"m.{part}": size for part, size in affine.shapes(*shape).items()
    }
    words = mx.array(stored["m.weight"].numpy())
    assert words.dtype == mx.uint32
    half = {torch.float32: mx.float32, torch.float16: mx.float16, torch.bfloat16: mx.bfloat16}[dtype]
    scales, biases = (mx.array(stored[f"m.{part}"].float().numpy()).astype(half) for part in ("scales", "biases"))
    found = mx.dequantize(words, scales, biases, group_size=affine.group_size, bits=affine.bits)
    return torch.from_numpy(np.array(found.astype(mx.float32)))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20)
@given(data=st.data())
def test_mlx_gives_codes_times_scales(kind: str, data: st.DataObject) -> None:
    value = data.draw(matrices(kind))
    affine = choose_affine(value)
    assert (affine.bits, affine.offset) == KINDS[kind][2:]
    assert affine.group_size == GROUPS[value.group_size] and affine.group_size * affine.repeats == value.group_size
    assert torch.equal(dequantized(value), value.dequantize())


@pytest.mark.parametrize("size", [16, 48, 40])
def test_groups_that_are_no_multiple_of_32_are_refused(size: int) -> None:
    codes = torch.zeros(2, 2 * size, dtype=torch.int8)
    value = QuantizedTensor(codes, torch.ones(2, 2).half(), torch.ones(2, dtype=torch.int8), size)
    with pytest.raises(ExportError, match=f"^groups of {size} columns; MLX takes multiples of 32$"):
        choose_affine(value)


@pytest.mark.parametrize("dtype", LARGEST_ERRORS)
def test_in_half_precision_ternary_is_exact_and_four_bits_are_rounded(dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(0)
    scale = (0.01 + torch.rand(64, 32, generator=random)).to(torch.bfloat16).half()
    errors = {}
    for qmax in (1, 7):
        codes = torch.randint(-qmax, qmax + 1, (64, 1024), generator=random, dtype=torch.int8)
        value = QuantizedTensor(codes, scale, torch.full((64,), qmax, dtype=torch.int8), 32)
        wrong = (dequantized(value, dtype) - value.dequantize()).abs()
        errors[qmax] = float((wrong / scale.float().repeat_interleave(32, dim=1)).max())
    assert errors[1] == 0
    assert LARGEST_ERRORS[dtype] / 4 < errors[7] < LARGEST_ERRORS[dtype]
