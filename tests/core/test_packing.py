"""Codes go in, the same codes come out, in the bytes that were promised (TRANSFORMERS 5)."""

import hashlib
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgerazor.core import packing
from edgerazor.core.packing import (
    Layout,
    content_digest,
    pack,
    pack_bits,
    pack_i4,
    pack_t5,
    packed_bytes,
    unpack,
    unpack_bits,
    unpack_t5,
)
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import CheckpointError
from tests.plugins.quantizer_cases import MILD, cases, examples

KINDS = [(1,), (3,), (7,), (63,), (127,), (1, 3), (1, 7), (1, 127), (3, 7), (7, 127)]


@st.composite
def matrices(draw: st.DrawFn) -> QuantizedTensor:
    """Any codes in one or two widths, per row or per group, symmetric or reaching one step further down."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    kinds, rows = torch.tensor(draw(st.sampled_from(KINDS))), draw(st.integers(1, 17))
    size, groups = draw(st.integers(1, 13)), draw(st.integers(1, 3))
    shape = (rows, groups) if draw(st.booleans()) else (rows, 1)
    qmax = kinds[torch.randint(0, len(kinds), shape, generator=generator)]
    lowest = -qmax - int(draw(st.booleans()))
    span = (qmax - lowest + 1).unsqueeze(-1).expand(rows, groups if shape[1] == groups else 1, 1)
    drawn = torch.rand(rows, groups, size, generator=generator)
    codes = (drawn * span).floor() + lowest.unsqueeze(-1)
    scale = torch.rand(rows, groups, generator=generator).half()
    per_row = shape[1] == 1 and draw(st.booleans())
    widths = qmax.squeeze(-1) if per_row else qmax.expand(rows, groups)
    return QuantizedTensor(
        codes.to(torch.int8).reshape(rows, groups * size), scale, widths.to(torch.int8).contiguous(), size
    )


@settings(max_examples=150)
@given(tensor=matrices())
def test_unpacking_gives_back_what_was_packed(tensor: QuantizedTensor) -> None:
    layout, tensors = pack(tensor)
    again = unpack(layout, tensors, tensor.codes.shape[1])
    assert torch.equal(again.codes, tensor.codes) and again.codes.dtype == torch.int8
    assert torch.equal(again.scale, tensor.scale) and again.group_size == tensor.group_size
    assert torch.equal(again.qmax, tensor.widest_qmax())
    assert content_digest([("m", again)]) == content_digest([("m", tensor)])
    shapes = {name: (tuple(part.shape), part.dtype) for name, part in tensors.items()}
    assert shapes == layout.shapes(*tensor.codes.shape)


@settings(max_examples=50)
@given(tensor=matrices())
def test_the_bytes_are_those_predicted_from_widths(tensor: QuantizedTensor) -> None:
    _, tensors = pack(tensor)
    columns = tensor.codes.shape[1]
    kinds, rows = tensor.widest_qmax().unique(return_counts=True)
    widths = {int(kind): int(count) * columns for kind, count in zip(kinds, rows, strict=True)}
    predicted = packed_bytes(tuple(tensor.codes.shape), widths, tensor.group_size, symmetric=tensor.symmetric)
    assert predicted == sum(part.numel() * part.element_size() for part in tensors.values())


@pytest.mark.parametrize(("name", "values"), cases())
@given(data=st.data())
def test_the_bytes_of_every_quantizer_are_known_from_the_shape(
    name: str, values: dict[str, Any], data: st.DataObject
) -> None:
    quantizer, x = data.draw(examples(name, values, scale_dtypes=("float16", "float16_bfloat16"), kinds=MILD))
    shape, quantized = tuple(x.reshape(-1, x.shape[-1]).shape), quantizer.quantize(x.reshape(-1, x.shape[-1]))
    assume(quantized.symmetric == getattr(quantizer, "symmetric", True))
    stored = getattr(quantizer, "stored_widths", quantizer.widths)(shape)
    predicted = packed_bytes(shape, stored, quantized.group_size, symmetric=quantized.symmetric)
    real = sum(part.numel() * part.element_size() for part in pack(quantized)[1].values())
    # Which rows hold the groups of largest variance is known from the weights alone: the prediction is the most.
    assert real <= predicted if values.get("placement") == "variance_groups" else real == predicted


def test_five_ternary_codes_a_byte() -> None:
    packed = pack_t5(torch.tensor([[-1, 0, 1, 1, 0, 1, -1]], dtype=torch.int8))
    assert packed.tolist() == [[0 + 1 * 3 + 2 * 9 + 2 * 27 + 1 * 81, 2 + 0 * 3 + 1 * 9 + 1 * 27 + 1 * 81]]
    assert pack_t5(torch.ones(1, 5, dtype=torch.int8)).tolist() == [[242]]


def test_two_four_bit_codes_a_byte() -> None:
    assert pack_i4(torch.tensor([[-8, 7, 1]], dtype=torch.int8)).tolist() == [[0 | 15 << 4, 9 | 8 << 4]]


@given(bits=st.lists(st.booleans(), min_size=1, max_size=40))
def test_one_bit_a_row(bits: list[bool]) -> None:
    packed = pack_bits(torch.tensor(bits))
    assert packed.tolist() == [
        sum(bit << place for place, bit in enumerate(bits[start : start + 8])) for start in range(0, len(bits), 8)
    ]
    assert unpack_bits(packed, len(bits)).tolist() == bits


def held(qmax: list[int], dtype: torch.dtype = torch.float16) -> QuantizedTensor:
    rows = len(qmax)
    codes = torch.ones(rows, 10, dtype=torch.int8)
    return QuantizedTensor(codes, torch.ones(rows, 2, dtype=dtype), torch.tensor(qmax, dtype=torch.int8), 5)


def test_scales_that_are_not_float16_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"float32.*scale_dtype: float16"):
        pack(held([1, 7], torch.float32))


def test_a_third_kind_of_row_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"3 widths \(1, 7, 127\)"):
        pack(held([1, 7, 127]))


def test_rows_lie_in_order_and_the_bitmap_says_which() -> None:
    codes = torch.tensor([[7] * 10, [1] * 10, [-1] * 10, [-8] * 10], dtype=torch.int8)
    mixed = QuantizedTensor(codes, torch.ones(4, 2).half(), torch.tensor([7, 1, 1, 7], dtype=torch.int8), 5)
    layout, tensors = pack(mixed)
    # One code of -8 makes the matrix asymmetric, and then a row of qmax 1 might reach -2.
    assert layout == Layout(("i4", "i4"), (1, 7), 5, 2) and tensors["weight_rows"].tolist() == [0b1001]
    layout, tensors = pack(QuantizedTensor(codes.clamp(min=-7), mixed.scale, mixed.qmax, 5))
    assert layout == Layout(("t5", "i4"), (1, 7), 5, 2)
    assert torch.equal(tensors["weight_t5"], pack_t5(codes[1:3]))
    assert torch.equal(tensors["weight_i4"], pack_i4(codes[[0, 3]].clamp(min=-7)))


def test_the_digest_is_over_names_codes_scales_and_widths() -> None:
    one, other = held([1, 7]), held([7, 7])
    digest = hashlib.sha256()
    for name, tensor in (("a", one), ("b", other)):
        digest.update(name.encode() + b"\0" + (2).to_bytes(8, "little") + (10).to_bytes(8, "little"))
        digest.update(bytes([1] * 20) + tensor.scale.numpy().astype("<f2").tobytes() + bytes(tensor.qmax.tolist()))
    expected = digest.hexdigest()
    assert content_digest([("a", one), ("b", other)]) == expected
    assert content_digest([("a", one), ("c", other)]) != expected
    for changed in (
        QuantizedTensor(one.codes.clone().fill_(0), one.scale, one.qmax, 5),
        QuantizedTensor(one.codes, one.scale * 2, one.qmax, 5),
        QuantizedTensor(one.codes, one.scale, other.qmax, 5),
    ):
        assert content_digest([("a", changed), ("b", other)]) != expected


@pytest.mark.parametrize("columns", [7, 10])
def test_a_large_matrix_is_unpacked_in_parts(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = torch.randint(-1, 2, (12, columns), generator=torch.Generator().manual_seed(0), dtype=torch.int8)
    packed = pack_t5(codes)
    monkeypatch.setattr(packing, "_CODES_AT_ONCE", 5 * columns)
    assert torch.equal(unpack_t5(packed, columns), codes)
