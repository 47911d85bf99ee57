"""Training that multiplies codes: on which processors, with what results, and what it costs (KERNELS 1.8)."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from edgerazor.core.layers.linear import make_linear
from edgerazor.core.layers.quantized_linear import quantized_linear
from edgerazor.core.layers.weight_cache import cached_weights
from edgerazor.kernels.dispatch import SETTING
from edgerazor.kernels.processor import Processor
from tests.core.layers.separate_steps import straight
from tests.plugins.quantizer_cases import build
from tests.processors import PROCESSORS, name

WIDE_INT8 = {"bits": 8, "group_size": 256, "scale_dtype": "float32"}
VNNI = Processor(vnni=True)


@pytest.fixture(params=["auto", "reference"])
def setting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Products of codes, then of values."""
    monkeypatch.setenv(SETTING, request.param)
    return str(request.param)


def wide_operands() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator).requires_grad_(True) for shape in ((2, 5, 512), (24, 512), (24,))]


def exact_output(operands: list[Tensor], wq: Any, xq: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """In float64, from quantized operands that are rounded to `dtype`: the output, and the sum of magnitudes in it."""
    x, weight, bias = (value.detach() for value in operands)
    x, weight, bias = (value.to(dtype).double() for value in (xq.fake_quantize(x), wq.fake_quantize(weight), bias))
    return functional.linear(x, weight, bias), functional.linear(x.abs(), weight.abs(), bias.abs())


@pytest.mark.parametrize("processor", PROCESSORS, ids=name)
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("weights", ["ternary", "sqmp"])
def test_training_multiplies_codes_where_that_pays_and_its_gradients_are_those_of_values(
    weights: str, autocast: bool, processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"high_ratio": 0.125} if weights == "sqmp" else {}
    wq, xq = build(weights, group_size=256, **options), build("int", **WIDE_INT8)
    upstream = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(2))
    of_codes = processor.vnni and not (autocast and processor.bfloat16)
    found = []
    for setting in ("auto", "reference"):
        monkeypatch.setenv(SETTING, setting)
        inputs = wide_operands()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            out = quantized_linear(*inputs, weight_quantizer=wq, input_quantizer=xq, processor=processor)
        found.append((out, torch.autograd.grad(out, inputs, upstream.to(out.dtype))))
        # Codes and scales stay as they are; values are rounded to the type of the product. Then sums are rounded as
        # float32 (1e-6 of the magnitudes in them), and once or twice as bfloat16 (2 ** -8 each).
        rounded = torch.bfloat16 if autocast and not (of_codes and setting == "auto") else torch.float32
        exact, magnitudes = exact_output(inputs, wq, xq, rounded)
        error, unit = (out.double() - exact).abs(), 2**-7 if autocast else 2**-24
        assert bool((error <= unit * exact.abs() + (1e-6 + (2**-16 if autocast else 0)) * magnitudes).all())
    (ours, our_gradients), (theirs, their_gradients) = found
    assert ours.dtype == theirs.dtype and torch.equal(ours, theirs) == (not of_codes)
    assert all(torch.equal(mine, other) for mine, other in zip(our_gradients, their_gradients, strict=True))


@pytest.mark.parametrize("shape", [(512,), (3, 512), (2, 3, 512), (0, 512)])
@pytest.mark.parametrize("bias", [True, False])
def test_inputs_of_any_shape_and_outputs_that_are_changed_in_place(
    shape: tuple[int, ...], bias: bool, setting: str
) -> None:
    module = nn.Linear(512, 24, bias=bias)
    make_linear(module, build("ternary", group_size=256), build("int", **WIDE_INT8), processor=VNNI)
    x = torch.randn(shape, requires_grad=True)
    out = module(x)
    assert out.shape == (*shape[:-1], 24)
    if setting == "auto":
        out.mul_(2)
    out.sum().backward()
    assert x.grad is not None and x.grad.shape == shape and module.weight.grad is not None


@pytest.mark.usefixtures("setting")
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_recomputation_finds_the_weight_in_the_cache(use_reentrant: bool) -> None:
    module = nn.Linear(512, 512)
    make_linear(module, build("ternary", group_size=256), build("int", **WIDE_INT8), processor=VNNI)
    x = torch.randn(3, 512, requires_grad=True)
    plain = torch.autograd.grad(module(x).square().sum(), x)[0]
    with cached_weights(module) as cache:
        for _ in range(3):
            x.grad = None
            checkpoint(module, x, use_reentrant=use_reentrant).square().sum().backward()
            torch.testing.assert_close(x.grad, plain, rtol=1e-5, atol=1e-5 * float(plain.abs().max()))
        assert cache.quantizations == 1


def test_evaluation_before_training_costs_no_quantization() -> None:
    module = nn.Linear(512, 24)
    make_linear(module, build("ternary", group_size=256), build("int", **WIDE_INT8), processor=VNNI)
    x = torch.randn(3, 512, requires_grad=True)
    with cached_weights(module) as cache:
        with torch.no_grad():
            module(x)
        module(x).sum().backward()
        assert cache.quantizations == 1


@pytest.mark.parametrize("processor", PROCESSORS, ids=name)
@pytest.mark.parametrize("autocast", [False, True])
def test_without_gradients_a_half_precision_layer_is_a_finished_models(autocast: bool, processor: Processor) -> None:
    wq, xq = build("ternary", group_size=256), build("int", **WIDE_INT8)
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(shape, generator=generator) for shape in ((64, 2048), (1024, 2048)))
    x, weight = (x, weight) if autocast else (x.bfloat16(), weight.bfloat16())
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        out = quantized_linear(x, weight, None, weight_quantizer=wq, input_quantizer=xq, processor=processor)
        assert torch.equal(out, straight(x, weight, None, wq, xq))


def test_without_gradients_it_multiplies_the_values_of_a_finished_model() -> None:
    wq, xq = build("ternary", group_size=256), build("int", **WIDE_INT8)
    inputs = wide_operands()
    with torch.no_grad():
        out = quantized_linear(*inputs, weight_quantizer=wq, input_quantizer=xq, processor=VNNI)
        assert torch.equal(out, straight(*inputs, wq, xq))
    trained = quantized_linear(*inputs, weight_quantizer=wq, input_quantizer=xq, processor=VNNI)
    assert not torch.equal(trained, out)
    torch.testing.assert_close(trained, out, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("policy", ["full", "codes"])
def test_codes_and_values_of_a_weight_are_one_quantization(policy: Any) -> None:
    module = nn.Linear(512, 24)
    make_linear(module, build("ternary", group_size=256), build("int", **WIDE_INT8), processor=VNNI)
    x = torch.randn(3, 512, requires_grad=True)

    def gradients() -> tuple[Tensor, ...]:
        return torch.autograd.grad(module(x).square().sum(), [x, *module.parameters()])

    def negate() -> None:
        with torch.no_grad():
            module.weight.neg_()

    uncached = []
    for _ in range(2):
        uncached.append(gradients())
        negate()
    with cached_weights(module, policy=policy, check=True) as cache:
        for expected in uncached:
            before = cache.quantizations
            for _ in range(2):
                assert all(torch.equal(mine, other) for mine, other in zip(gradients(), expected, strict=True))
            assert cache.quantizations == before + 1
            negate()
