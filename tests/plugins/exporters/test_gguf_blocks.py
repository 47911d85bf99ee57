"""Block types: what is packed is what every reader gets, ours and the one of the gguf package."""

from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgerazor.errors import ExportError
from edgerazor.plugins.exporters.gguf.blocks import BLOCK_TYPES, BlockType
from edgerazor.plugins.exporters.gguf.unpack import DECODERS

SMALLEST, LARGEST = 2.0**-14, 65504.0
GROUP_SIZES = (32, 64, 128, 256, 512)
PAIRS = [
    (block_type.name, size)
    for block_type in BLOCK_TYPES.values()
    for size in GROUP_SIZES
    if size % block_type.block == 0
]
KNOWN_TO_GGUF = {kind.value for kind in gguf.GGMLQuantizationType}


@st.composite
def matrices(draw: Any, block_type: BlockType, group_size: int) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Codes of the whole range and scales of every size and sign, some groups all zero."""
    rows, groups = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    codes = random.integers(block_type.low, block_type.high + 1, (rows, groups * group_size)).astype(np.int8)
    magnitudes = np.exp2(random.uniform(-14, 15.99, (rows, groups)))
    extremes = random.choice([SMALLEST, LARGEST, 1.0], (rows, groups))
    scale = np.where(random.random((rows, groups)) < 0.3, extremes, magnitudes) * random.choice([-1, 1], (rows, groups))
    empty = random.random((rows, groups)) < 0.2
    scale[empty] = random.choice([0.0, SMALLEST], int(empty.sum()))
    codes[np.repeat(empty, group_size, axis=1)] = 0
    scale = scale.astype(np.float16)
    return codes, np.where(np.abs(scale) < SMALLEST, np.float16(0) * scale, scale)


@pytest.mark.parametrize(("name", "group_size"), PAIRS)
@settings(max_examples=12)
@given(data=st.data())
def test_what_is_packed_is_what_is_read(name: str, group_size: int, data: st.DataObject) -> None:
    block_type = BLOCK_TYPES[name]
    codes, scale = data.draw(matrices(block_type, group_size))
    raw = block_type.pack(codes, scale)
    rows, columns = codes.shape
    assert raw.dtype == np.uint8 and raw.shape == (rows, columns * block_type.bytes // block_type.block)
    expected = codes.astype(np.float32) * np.repeat(scale.astype(np.float32), group_size, axis=1)
    decoder = DECODERS[block_type.id]
    assert (decoder.name, decoder.block, decoder.bytes) == (name, block_type.block, block_type.bytes)
    assert np.array_equal(decoder.rows(raw, columns), expected)
    if block_type.id in KNOWN_TO_GGUF:
        assert np.array_equal(gguf.dequantize(raw, gguf.GGMLQuantizationType(block_type.id)), expected)


@pytest.mark.parametrize("name", BLOCK_TYPES)
def test_sizes_and_numbers_are_those_of_the_format(name: str) -> None:
    block_type = BLOCK_TYPES[name]
    if block_type.id not in KNOWN_TO_GGUF:
        assert (name, block_type.id, block_type.block, block_type.bytes) == ("Q2_0", 42, 64, 18)
        return
    kind = gguf.GGMLQuantizationType(block_type.id)
    assert kind.name == name and gguf.GGML_QUANT_SIZES[kind] == (block_type.block, block_type.bytes)


@pytest.mark.parametrize("name", BLOCK_TYPES)
def test_every_code_at_every_place_is_kept(name: str) -> None:
    """One row per code and shift, so that no two places of a block can be exchanged unseen."""
    block_type = BLOCK_TYPES[name]
    levels = np.arange(block_type.low, block_type.high + 1)
    places = np.arange(block_type.block)
    codes = np.stack([levels[(places * step + shift) % len(levels)] for step in (1, 3, 7) for shift in levels])
    scale = np.full((len(codes), 1), 0.5, dtype=np.float16)
    raw = block_type.pack(codes.astype(np.int8), scale)
    assert np.array_equal(DECODERS[block_type.id].rows(raw, block_type.block), codes.astype(np.float32) / 2)


@pytest.mark.parametrize("name", BLOCK_TYPES)
@pytest.mark.parametrize("scale", [2.0**-15, -(2.0**-24), np.inf, np.nan])
def test_a_scale_that_is_subnormal_or_not_finite_is_refused(name: str, scale: float) -> None:
    block_type = BLOCK_TYPES[name]
    codes = np.ones((1, block_type.block), dtype=np.int8)
    with pytest.raises(ExportError, match="a scale is subnormal or not finite"):
        block_type.pack(codes, np.array([[scale]], dtype=np.float16))


@pytest.mark.parametrize("name", [name for name in BLOCK_TYPES if name != "Q8_0"])
def test_a_code_out_of_range_is_refused(name: str) -> None:
    block_type = BLOCK_TYPES[name]
    codes = np.zeros((1, block_type.block), dtype=np.int8)
    scale = np.ones((1, 1), dtype=np.float16)
    for outside in (block_type.low - 1, block_type.high + 1):
        codes[0, -1] = outside
        with pytest.raises(ExportError, match=rf"holds codes {block_type.low}\.\.{block_type.high}, found"):
            block_type.pack(codes, scale)


@pytest.mark.parametrize("name", BLOCK_TYPES)
def test_a_group_that_does_not_fill_blocks_is_refused(name: str) -> None:
    block_type = BLOCK_TYPES[name]
    codes = np.zeros((1, 2 * block_type.block), dtype=np.int8)
    with pytest.raises(ExportError, match="do not fill its blocks"):
        block_type.pack(codes, np.ones((1, 4), dtype=np.float16))


def test_layouts_by_hand() -> None:
    """One nonzero code; its byte and bits follow from the tables of the format."""
    one = np.float16(1).tobytes()

    def packed(name: str, element: int, code: int) -> bytes:
        codes = np.full((1, BLOCK_TYPES[name].block), BLOCK_TYPES[name].low, dtype=np.int8)
        codes[0, element] = code
        return BLOCK_TYPES[name].pack(codes, np.ones((1, 1), dtype=np.float16)).tobytes()

    assert packed("Q4_0", 17, 7) == one + bytes([0, 15 << 4]) + bytes(14)
    assert packed("Q2_0", 5, 2) == one + bytes([0, 3 << 2]) + bytes(14)
    assert packed("TQ2_0", 128 + 32 + 3, 1) == bytes(35) + bytes([2 << 2]) + bytes(28) + one
    assert packed("Q2_K", 128 + 32 + 3, 2) == b"\x11" * 16 + bytes(35) + bytes([3 << 2]) + bytes(28) + one + one
    constants = b"\x01" * 4 + b"\x08" * 4 + b"\x81" * 4
    assert packed("Q4_K", 64 + 32 + 3, 7) == one + one + constants + bytes(35) + bytes([15 << 4]) + bytes(92)
    assert packed("TQ1_0", 160 + 16 + 2, 1)[34] == -(-256 * 2 * 27 // 243)
