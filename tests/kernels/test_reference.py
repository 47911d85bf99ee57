"""The arithmetic that every implementation must repeat bit for bit (METHOD 1.2, KERNELS 1.1)."""

import pytest
import torch

from edgerazor.kernels import reference


@pytest.mark.parametrize("rows", [1, 511, 512, 513, 1500])
def test_the_absolute_sum_is_exact_in_float64(rows: int) -> None:
    groups = torch.randn(rows, 96, generator=torch.Generator().manual_seed(0)) * 1e3
    expected = groups.double().abs().sum(dim=-1, keepdim=True)
    torch.testing.assert_close(reference.absolute_sum(groups), expected, rtol=1e-15, atol=0)
    assert torch.equal(reference.absolute_sum(groups.reshape(rows, 1, 96))[:, 0], reference.absolute_sum(groups))


@pytest.mark.parametrize(
    ("raw", "stored"),
    [(1e-9, 2.0**-14), (2.0**-14, 2.0**-14), (0.1, 0.0999755859375), (65519.0, 65504.0), (1e30, 65504.0)],
)
def test_stored_scales_are_normal_float16_numbers(raw: float, stored: float) -> None:
    assert reference.round_scale(torch.tensor([raw]), "float16").tolist() == [stored]
    assert torch.equal(reference.round_scale(torch.tensor([raw]), "float32"), torch.tensor([raw]))


def test_scales_are_floored() -> None:
    nothing = torch.zeros(3, 32)
    assert torch.equal(reference.absmax_scale(nothing, 7), torch.full((3, 1), 1e-5) / 7)
    assert torch.equal(reference.absmean_scale(nothing, 2.0), torch.full((3, 1), 1e-5))
    assert torch.equal(reference.asymmetric_scale(nothing, 7), torch.full((3, 1), 1e-5))


def test_ternary_codes_need_no_division() -> None:
    """sign(w) * [|w| > s/2] is what rounding w/s gives, also one unit in the last place around s/2."""
    scale = torch.arange(1, 32768, dtype=torch.int16).view(torch.float16).float()
    scale = scale[torch.isfinite(scale) & (scale >= 2.0**-14)].unsqueeze(-1)
    half = scale / 2
    around = [half, half.nextafter(half + 1), half.nextafter(half - 1), scale, 0 * scale]
    w = torch.cat([*around, *(-values for values in around)], dim=-1)
    codes = reference.round_codes(w, scale, -1, 1)
    assert torch.equal(codes, w.sign() * (w.abs() > half))


def test_code_times_scale_is_exact_in_float32() -> None:
    scale = torch.arange(1024, 31744, 7, dtype=torch.int16).view(torch.float16)
    codes = torch.arange(-128, 128, dtype=torch.int8).repeat(len(scale), 1)
    value = reference.dequantize(codes, scale.unsqueeze(-1), torch.float32)
    assert torch.equal(value.double(), codes.double() * scale.double().unsqueeze(-1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dequantize_rounds_once(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(-127, 128, (64, 64), generator=generator, dtype=torch.int8)
    scale = torch.rand(64, 2, generator=generator).half()
    exact = codes.double() * scale.double().repeat_interleave(32, dim=-1)
    assert torch.equal(reference.dequantize(codes, scale, dtype), exact.to(dtype))


def test_a_large_matrix_is_dequantized_in_tiles_to_the_same_values() -> None:
    codes = torch.randint(-127, 128, (1100, 520), generator=torch.Generator().manual_seed(0), dtype=torch.int8)
    scale = torch.rand(1100, 13, generator=torch.Generator().manual_seed(1)).half()
    whole, rows = reference.dequantize(codes, scale, torch.bfloat16), range(0, 1100, 110)
    parts = [reference.dequantize(codes[at : at + 110], scale[at : at + 110], torch.bfloat16) for at in rows]
    assert codes.numel() > 4 * reference._IN_CACHE and torch.equal(whole, torch.cat(parts))
