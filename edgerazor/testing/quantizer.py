"""The laws of quantizers (METHOD 1)."""

import re
from typing import Any

import torch
from torch import Tensor

from edgerazor.core.discovery import load_plugins
from edgerazor.core.group_sizes import fitting_group_sizes
from edgerazor.core.packing import pack, unpack
from edgerazor.core.registry import Registry
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import PlanError
from edgerazor.schemas.components import QuantizerParams
from edgerazor.testing.laws import expect, expect_equal, hold_for_examples
from edgerazor.testing.quantizer_examples import TensorExample, tensor_examples

_SMALLEST_SCALE = 2.0**-14
_BOTH = "float16_bfloat16"


def check_quantizer(params: QuantizerParams, *, registry: Registry | None = None) -> None:
    """Hold a quantizer to the laws of its contract, on about twenty drawn tensors each.

    Args:
        params: its parameters; group size and everything else stay as they are.
        registry: builds it; None loads the installed plugins.

    Raises:
        BrokenLawError: the first law that it breaks, with what was found and the example that shows it.
        PluginError: it cannot be built.
    """
    registry = registry or load_plugins()
    examples = tensor_examples(registry.build(params))
    hold_for_examples(LAWS, params.name, lambda: registry.build(params), examples)


def codes_scales_and_widths_have_their_shapes_and_types(quantizer: Any, example: TensorExample) -> None:
    x = example.tensor()
    found = quantizer.quantize(x)
    expect(isinstance(found, QuantizedTensor), f"quantize gives a {type(found).__name__}, not a QuantizedTensor")
    rows, groups = x.shape[:-1].numel(), x.shape[-1] // example.group_size
    size = found.group_size
    expect(size == example.group_size, f"group_size is {size}, {example.group_size} was asked for")
    shapes = {"codes": tuple(x.shape), "scale": (*x.shape[:-1], groups)}
    for name, shape in shapes.items():
        given = tuple(getattr(found, name).shape)
        expect(given == shape, f"{name} of a tensor {list(x.shape)} has shape {list(given)}, not {list(shape)}")
    widths = tuple(found.qmax.shape)
    expect(widths in {(rows,), (rows, groups)}, f"qmax has shape {list(widths)}, not [{rows}] or [{rows}, {groups}]")
    wanted = {"codes": torch.int8 if quantizer.signed else torch.int16, "qmax": torch.int8}
    for name, kind in wanted.items():
        dtype = getattr(found, name).dtype
        expect(dtype == kind, f"{name} is {dtype}, not {str(kind).removeprefix('torch.')}")


def codes_are_within_their_width(quantizer: Any, example: TensorExample) -> None:
    found = quantizer.quantize(example.tensor())
    expect((found.qmax > 0).all(), f"qmax is {int(found.qmax.min())} somewhere; it is at least 1")
    codes, qmax = _groups(found)
    symmetric = quantizer.symmetric
    lowest = -qmax if symmetric else -qmax - 1
    if not quantizer.signed:
        qmax = torch.where((codes < 0).any(dim=-1, keepdim=True), qmax, 2 * qmax + 1)
    outside = (codes > qmax) | (codes < lowest)
    if bool(outside.any()):
        row, group, column = outside.nonzero()[0].tolist()
        code, limit = int(codes[row, group, column]), int(qmax.expand_as(codes)[row, group, column])
        further = "" if symmetric or code > 0 else ", nor its -qmax-1"
        raise AssertionError(f"a code of row {row} is {code}, although its qmax is {limit}{further}")


def scales_can_be_stored(quantizer: Any, example: TensorExample) -> None:
    scale = quantizer.quantize(example.tensor()).scale
    wanted = getattr(quantizer.params, "scale_dtype", "float16")
    stored = torch.float16 if wanted == _BOTH else getattr(torch, wanted)
    expect(scale.dtype == stored, f"scales are {scale.dtype}, scale_dtype is {wanted}")
    expect(torch.isfinite(scale).all(), "a scale is not finite; clamp it to 65504")
    expect(quantizer.signed_scale or (scale >= 0).all(), "a scale is negative, and the class does not say signed_scale")
    if wanted == _BOTH:
        expect_equal(scale.to(torch.bfloat16).to(scale.dtype), scale, "bfloat16 has other numbers for the scales")
    if wanted != "float32":
        tiny = (scale != 0) & (scale.abs() < _SMALLEST_SCALE)
        expect(not tiny.any(), "a scale is below 2^-14, the smallest normal float16; clamp it")


def fake_quantize_is_what_quantize_stores(quantizer: Any, example: TensorExample) -> None:
    x = example.tensor()
    expected = quantizer.quantize(x).dequantize(x.dtype)
    for name in ("fake_quantize", "fake_quantize_only"):
        expect_equal(getattr(quantizer, name)(x), expected, f"{name} differs from quantize().dequantize()")


def one_pass_gives_what_two_give(quantizer: Any, example: TensorExample) -> None:
    x = example.tensor()
    stored, value = quantizer.quantize_dequantize(x)
    expected = quantizer.quantize(x)
    expect_equal(value, expected.dequantize(x.dtype), "quantize_dequantize differs from quantize().dequantize()")
    for name in ("codes", "scale", "qmax"):
        found = getattr(stored, name)
        expect_equal(found, getattr(expected, name), f"{name} of quantize_dequantize differ from those of quantize")


def stored_widths_are_those_of_whole_rows(quantizer: Any, example: TensorExample) -> None:
    x = example.tensor()
    shape = tuple(x.shape)
    widest = quantizer.quantize(x).widest_qmax()
    counts = zip(*widest.unique(return_counts=True), strict=True)
    needed = {int(qmax): int(rows) * shape[-1] for qmax, rows in counts}
    stored = dict(quantizer.stored_widths(shape))
    expect(sum(stored.values()) == x.numel(), f"stored_widths({shape}) counts {sum(stored.values())} weights")
    for qmax in needed:
        room = sum(count for width, count in stored.items() if width >= qmax)
        wanted = sum(count for width, count in needed.items() if width >= qmax)
        expect(room >= wanted, f"stored_widths({shape}) says {stored}; the rows of the tensor need {needed}")


def blocks_are_split_where_it_says_so(quantizer: Any, example: TensorExample) -> None:
    x = example.tensor()
    rows = x.reshape(-1, x.shape[-1])
    if not quantizer.splits_at(len(rows)):
        return
    both = torch.cat([rows, example.other().tensor().reshape(rows.shape).nan_to_num()])
    whole, halves = quantizer.quantize(both), [quantizer.quantize(half) for half in both.chunk(2)]
    for name in ("codes", "scale", "qmax"):
        apart = torch.cat([getattr(half, name) for half in halves])
        expect_equal(getattr(whole, name), apart, f"splits_at({len(rows)}) is True, but {name} of two blocks differ")


def the_gradient_passes_straight_through(quantizer: Any, example: TensorExample) -> None:
    x = example.tensor().requires_grad_(True)
    value = quantizer.fake_quantize(x)
    upstream = torch.linspace(-1, 1, x.numel()).reshape(x.shape).to(x.dtype)
    expect(value.requires_grad, "fake_quantize gives no gradient; use edgerazor.core.tensor.straight_through")
    (gradient,) = torch.autograd.grad(value, x, upstream, materialize_grads=True)
    expect_equal(gradient, upstream, "the gradient of x differs from the one of fake_quantize(x)")


def the_same_input_gives_the_same_result(quantizer: Any, example: TensorExample) -> None:
    x, random = example.tensor(), torch.random.get_rng_state()
    first = quantizer.quantize(x)
    expect_equal(x, example.tensor(), "quantize changed its input")
    fake = quantizer.fake_quantize(x)
    expect_equal(x, example.tensor(), "fake_quantize changed its input")
    quantizer.quantize(example.other().tensor())
    again = quantizer.quantize(x)
    for name in ("codes", "scale", "qmax"):
        expect_equal(getattr(again, name), getattr(first, name), f"{name} of a second call differ from the first")
    expect_equal(quantizer.fake_quantize(x), fake, "fake_quantize of a second call differs from the first")
    expect(torch.equal(torch.random.get_rng_state(), random), "it draws from torch's random numbers")


def widths_are_known_from_the_shape(quantizer: Any, example: TensorExample) -> None:
    x = example.tensor()
    found = quantizer.quantize(x)
    each = x.numel() // found.qmax.numel()
    counted = {int(qmax): each * int(count) for qmax, count in zip(*found.qmax.unique(return_counts=True), strict=True)}
    known = dict(quantizer.widths(tuple(x.shape)))
    expect(known == counted, f"widths({tuple(x.shape)}) says {known}; the quantized tensor has {counted}")


def leading_axes_are_rows(quantizer: Any, example: TensorExample) -> None:
    x = example.tensor()
    flat = quantizer.quantize(x.reshape(-1, x.shape[-1]))
    found = quantizer.quantize(x)
    expect_equal(found.codes.reshape(flat.codes.shape), flat.codes, "codes differ from those of the flattened tensor")
    expect_equal(found.qmax, flat.qmax, "qmax differs from that of the flattened tensor")


def rows_are_as_independent_as_it_says(quantizer: Any, example: TensorExample) -> None:
    if not quantizer.rows_independent:
        return
    x = example.tensor()
    rows = x.reshape(-1, x.shape[-1])
    alone = torch.cat([quantizer.fake_quantize(row.unsqueeze(0)) for row in rows]).reshape(x.shape)
    expect_equal(alone, quantizer.fake_quantize(x), "a row quantized alone differs from the same row among others")
    none = quantizer.fake_quantize(rows[:0])
    expect(none.shape == rows[:0].shape, f"a tensor without rows becomes {list(none.shape)}")


def a_group_of_zeros_stays_zero(quantizer: Any, example: TensorExample) -> None:
    x = example.tensor()
    x.reshape(-1, example.group_size)[0] = 0
    value = quantizer.fake_quantize(x).reshape(-1, example.group_size)[0]
    expect(not value.any(), f"a group of zeros becomes {value.abs().max().item()}")


def not_a_number_passes_through(quantizer: Any, example: TensorExample) -> None:
    x = example.other().tensor()
    rows = x.reshape(-1, x.shape[-1])
    rows[-1, 0] = torch.nan
    value = quantizer.fake_quantize(x).reshape(rows.shape)
    expect(value[-1, 0].isnan(), f"not a number becomes {value[-1, 0].item()}")
    if quantizer.rows_independent:
        expect(not value[:-1].isnan().any(), "not a number reaches another row")


def packing_and_unpacking_return_the_tensor(quantizer: Any, example: TensorExample) -> None:
    x = example.tensor()
    found = quantizer.quantize(x.reshape(-1, x.shape[-1]))
    if found.scale.dtype != torch.float16:
        return
    layout, stored = pack(found)
    back = unpack(layout, stored, x.shape[-1])
    expect_equal(back.codes, found.codes, "codes of the packed tensor differ")
    expect_equal(back.scale, found.scale, "scales of the packed tensor differ")
    expect_equal(back.qmax, found.widest_qmax(), "widths of the packed tensor differ")


def autocast_changes_nothing(quantizer: Any, example: TensorExample) -> None:
    x = example.tensor()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = quantizer.fake_quantize(x)
    expect_equal(inside, quantizer.fake_quantize(x), "fake_quantize under autocast differs")


def everything_stays_on_the_device(quantizer: Any, example: TensorExample) -> None:
    """The meta device has no values, so whatever reads one back to the host fails here, without a GPU."""
    if example.dtype != "float32":
        return  # the device is the same question for all of them, and a slow one
    found = quantizer.quantize(example.tensor().to("meta"))
    for name in ("codes", "scale", "qmax"):
        device = getattr(found, name).device.type
        expect(device == "meta", f"{name} of a tensor on the device 'meta' is made on the device '{device}'")


def a_group_size_that_does_not_divide_is_refused_with_the_cure(quantizer: Any, example: TensorExample) -> None:
    size = quantizer.params.group_size
    columns = next((width for width in (960, 96, 100) if size and width % size), None)
    if columns is None:
        return
    try:
        quantizer.check_shape((8, columns))
    except PlanError as error:
        named = {int(number) for number in re.findall(r"\d+", str(error))} - {columns, size}
        expect(
            named & set(fitting_group_sizes(columns)), f"check_shape names no group size that fits {columns}: {error}"
        )
    else:
        raise AssertionError(
            f"check_shape lets {columns} columns with group_size {size} through; PlanError was expected"
        )


LAWS = (
    codes_scales_and_widths_have_their_shapes_and_types,
    the_same_input_gives_the_same_result,
    codes_are_within_their_width,
    scales_can_be_stored,
    fake_quantize_is_what_quantize_stores,
    one_pass_gives_what_two_give,
    the_gradient_passes_straight_through,
    widths_are_known_from_the_shape,
    stored_widths_are_those_of_whole_rows,
    leading_axes_are_rows,
    rows_are_as_independent_as_it_says,
    blocks_are_split_where_it_says_so,
    a_group_of_zeros_stays_zero,
    not_a_number_passes_through,
    packing_and_unpacking_return_the_tensor,
    autocast_changes_nothing,
    everything_stays_on_the_device,
    a_group_size_that_does_not_divide_is_refused_with_the_cure,
)


def _groups(found: QuantizedTensor) -> tuple[Tensor, Tensor]:
    """Codes `[R, G, g]` and qmax `[R, G or 1, 1]`, int32."""
    qmax = found.qmax if found.qmax.ndim == 2 else found.qmax.unsqueeze(-1)
    return found.codes.reshape(qmax.shape[0], -1, found.group_size).int(), qmax.unsqueeze(-1).int()
