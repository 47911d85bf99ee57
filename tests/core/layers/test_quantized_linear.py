"""The quantized linear as one autograd function: what it computes, what it keeps, what it shares (KERNELS 1.3, 1.8)."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from edgerazor.core.layers.linear import make_linear
from edgerazor.core.layers.quantized_linear import InputSlot, quantized_linear
from edgerazor.kernels.processor import Processor
from tests.core.layers.separate_steps import straight
from tests.plugins.quantizer_cases import build
from tests.processors import PROCESSORS, name

INT8 = {"bits": 8, "group_size": 16, "scale_dtype": "float32"}
TERNARY = {"group_size": 32}


def operands(dtype: torch.dtype = torch.float32, *, bias: bool = True) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 5, 64), (24, 64), (24,))[: 2 + bias]
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_(True) for shape in shapes]


def assert_same(out: Tensor, expected: Tensor, processor: Processor) -> None:
    """The same bits; where bfloat16 is emulated, sums in another order may round to the number beside."""
    if out.dtype == torch.bfloat16 and not processor.bfloat16:
        torch.testing.assert_close(out, expected, rtol=2**-7, atol=2**-20)
    else:
        assert torch.equal(out, expected)


def saved_bytes(run: Any) -> tuple[int, Any]:
    """Bytes that autograd keeps, each storage once, latent weights left out."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        out = run()
    return sum(kept.values()), out


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("inputs", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("processor", [Processor(), Processor(bfloat16=True)], ids=name)
def test_value_and_gradients_are_those_of_separate_steps(
    bias: bool, weights: bool, inputs: bool, dtype: torch.dtype, processor: Processor
) -> None:
    wq, xq = build("ternary", **TERNARY) if weights else None, build("int", **INT8) if inputs else None
    ours, theirs = operands(dtype, bias=bias), operands(dtype, bias=bias)
    x, weight, *rest = ours
    options = {"weight_quantizer": wq, "input_quantizer": xq, "processor": processor}
    out = quantized_linear(x, weight, rest[0] if rest else None, **options)
    expected = straight(theirs[0], theirs[1], theirs[2] if bias else None, wq, xq)
    assert out.dtype == dtype
    assert_same(out, expected, processor)
    upstream = torch.randn_like(out)
    out.backward(upstream)
    expected.backward(upstream)
    tolerance = {} if dtype != torch.bfloat16 else {"rtol": 2e-2, "atol": 5e-2}
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, **tolerance)


@pytest.mark.parametrize("processor", PROCESSORS, ids=name)
def test_under_autocast_it_computes_in_its_dtype_and_gives_gradients_in_that_of_the_latents(
    processor: Processor,
) -> None:
    wq, xq = build("ternary", **TERNARY), build("int", **INT8)
    ours, theirs = operands(), operands()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = quantized_linear(*ours, weight_quantizer=wq, input_quantizer=xq, processor=processor)
        expected = straight(*theirs, wq, xq)
    assert out.dtype == torch.bfloat16
    assert_same(out, expected, processor)
    upstream = torch.randn_like(out)
    out.backward(upstream)
    expected.backward(upstream)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.grad is not None and mine.grad.dtype == torch.float32
        torch.testing.assert_close(mine.grad, other.grad, rtol=2e-2, atol=5e-2)


def test_the_gradient_of_the_weight_from_codes_is_that_from_values() -> None:
    wq, xq = build("ternary", **TERNARY), build("int", **INT8)
    x, weight, bias = operands()
    out = quantized_linear(x, weight, bias, weight_quantizer=wq, input_quantizer=xq)
    upstream = torch.randn_like(out)
    out.backward(upstream)
    value = xq.quantize(x).dequantize().flatten(0, -2)
    assert weight.grad is not None and torch.equal(weight.grad, upstream.flatten(0, -2).t() @ value)


def test_one_byte_per_input_element_and_its_scales_are_kept() -> None:
    x = torch.randn(4, 32, 256, requires_grad=True)
    module = nn.Linear(256, 16, bias=False)
    int8 = build("int", bits=8, group_size=256, scale_dtype="float32")
    make_linear(module, build("ternary", group_size=256), int8)
    kept, out = saved_bytes(lambda: module(x))
    assert kept == x.numel() * (1 + 4 / 256)
    out.sum().backward()


def test_layers_of_one_slot_quantize_and_keep_their_input_once() -> None:
    slot, layers = InputSlot(), [nn.Linear(64, 16) for _ in range(3)]
    xq = build("int", **INT8)
    for layer in layers:
        make_linear(layer, build("ternary", **TERNARY), xq, slot)
    x = torch.randn(2, 5, 64, requires_grad=True)
    kept, outs = saved_bytes(lambda: [layer(x) for layer in layers])
    assert slot.quantizations == 1 and kept == x.numel() * (1 + 4 / 16)
    layers[0](x.clone())
    assert slot.quantizations == 2
    sum(out.sum() for out in outs).backward()
    assert slot.dequantizations == 1
    alone = [nn.Linear(64, 16) for _ in range(3)]
    again = x.detach().clone().requires_grad_(True)
    for lone, layer in zip(alone, layers, strict=True):
        lone.load_state_dict(layer.state_dict())
        make_linear(lone, build("ternary", **TERNARY), xq)
    sum(layer(again).sum() for layer in alone).backward()
    torch.testing.assert_close(x.grad, again.grad)


def test_a_slot_sees_that_its_input_changed() -> None:
    slot, xq = InputSlot(), build("int", **INT8)

    def values(x: Tensor, quantizer: Any, dtype: torch.dtype = torch.float32) -> Tensor:
        return slot.quantize_dequantize(x, quantizer, dtype)[1]

    x = torch.randn(3, 64)
    first = values(x, xq).clone()
    x.mul_(2)
    assert torch.equal(values(x, xq), 2 * first)
    other = build("int", **{**INT8, "bits": 4})
    assert not torch.equal(values(x, other), 2 * first)
    assert values(x, other, torch.bfloat16).dtype == torch.bfloat16
    assert slot.quantizations == 3
    address = id(x)
    del x
    fresh = [torch.randn(3, 64) for _ in range(8)]
    for tensor in fresh:
        assert torch.equal(values(tensor, xq), xq.fake_quantize(tensor)), address


@pytest.mark.parametrize("codes_first", [True, False])
def test_codes_and_values_of_a_slot_are_one_quantization(codes_first: bool) -> None:
    slot, xq, x = InputSlot(), build("int", **INT8), torch.randn(3, 64)
    codes = slot.quantize(x, xq) if codes_first else None
    quantized, value = slot.quantize_dequantize(x, xq, torch.float32)
    assert slot.quantize(x, xq) is quantized and slot.quantizations == 1
    assert codes is None or codes is quantized
    assert torch.equal(value, xq.fake_quantize(x))


def test_recomputation_saves_what_the_first_pass_saved() -> None:
    slot, xq = InputSlot(), build("int", **INT8)
    layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(3))
    for layer in layers:
        make_linear(layer, build("ternary", **TERNARY), xq, slot)  # type: ignore[arg-type]

    def block(x: Tensor) -> Tensor:
        return layers[2](layers[0](x) * layers[1](x))  # type: ignore[no-any-return]

    x = torch.randn(2, 5, 64, requires_grad=True)
    plain = torch.autograd.grad(block(x).square().sum(), [x, *layers.parameters()])
    again = checkpoint(block, x, use_reentrant=False)
    found = torch.autograd.grad(again.square().sum(), [x, *layers.parameters()])
    assert all(torch.equal(gradient, other) for gradient, other in zip(plain, found, strict=True))


def test_frozen_weights_and_inputs_get_no_gradient() -> None:
    x, weight, bias = operands()
    wq, xq = build("ternary", **TERNARY), build("int", **INT8)
    out = quantized_linear(x.detach(), weight, None, weight_quantizer=wq, input_quantizer=xq)
    out.sum().backward()
    assert weight.grad is not None and x.grad is None
    quantized_linear(x, weight.detach(), bias, weight_quantizer=wq, input_quantizer=xq).sum().backward()
    assert x.grad is not None and bias.grad is not None
