"""Any codes and scales come back equal through the package's own unpacking."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("compressed_tensors")

from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32
from compressed_tensors.quantization import QuantizationScheme

from edgerazor.core.tensor import QuantizedTensor
from edgerazor.plugins.exporters.compressed_tensors.layout import (
    FORMAT,
    Scheme,
    declared_group,
    dequantized,
    pack_words,
    packed_tensors,
    shared_group,
    width,
)

GROUPS = (1, 3, 4, 16, 32, 64, 96, 128, 256, 320)


@st.composite
def matrices(draw: st.DrawFn) -> QuantizedTensor:
    """Rows of every width, and any float16 scales; where a scale is 0 or not finite, 1."""
    group, groups, rows = draw(st.sampled_from(GROUPS)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    qmax = torch.tensor(draw(st.lists(st.sampled_from((1, 3, 7, 127)), min_size=rows, max_size=rows)))
    random = torch.Generator().manual_seed(draw(st.integers(0, 1 << 30)))
    shape, lowest = (rows, group * groups), draw(st.sampled_from((0, 1)))
    codes = torch.randint(-(1 << 20), 1 << 20, shape, generator=random) % (2 * qmax[:, None] + 1 + lowest)
    scale = torch.randint(-32768, 32768, (rows, groups), generator=random).to(torch.int16).view(torch.float16)
    scale = scale.where(scale.isfinite() & (scale != 0), torch.ones_like(scale))
    codes = (codes - qmax[:, None] - lowest).to(torch.int8)
    return QuantizedTensor(codes, scale, qmax.to(torch.int8), group)


@given(matrices(), st.sampled_from((None, 2, 4, 8)), st.booleans())
@settings(deadline=None, max_examples=150)
def test_weights_come_back_equal(value: QuantizedTensor, bits: int | None, halved: bool) -> None:
    columns = value.codes.shape[1]
    group = declared_group(value.group_size, columns)
    if halved and value.group_size % 2 == 0:
        group = shared_group((group, value.group_size // 2), columns)
    scheme = Scheme(max(width(value.codes), bits or 0), group)
    assert group <= 128 and (not group or value.group_size % group == 0)
    stated = QuantizationScheme.model_validate({"targets": ["x"], **scheme.describe()})
    for dtype in (torch.float16, torch.float32):
        tensors = packed_tensors(value, scheme, dtype)
        found = BaseCompressor.get_value_from_registry(FORMAT).decompress(tensors, stated)["weight"]
        assert torch.equal(found, value.dequantize(dtype)) and torch.equal(found, dequantized(value, dtype))
    assert torch.equal(unpack_from_int32(tensors["weight_packed"], scheme.bits, value.codes.shape), value.codes)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("columns", [1, 31, 32, 100])
def test_words_are_those_of_the_package(bits: int, columns: int) -> None:
    low = -(1 << bits - 1)
    codes = torch.randint(low, -low, (3, columns), generator=torch.Generator().manual_seed(columns)).to(torch.int8)
    found, expected = pack_words(codes, bits), pack_to_int32(codes, bits)
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert torch.equal(unpack_from_int32(found, bits, codes.shape), codes)
    if columns % 32 == 0:
        assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("group", "columns", "expected"), [(256, 512, 128), (320, 640, 64), (256, 256, 0), (96, 192, 96)]
)
def test_groups_that_engines_lack_are_split(group: int, columns: int, expected: int) -> None:
    assert declared_group(group, columns) == expected
