"""Convolutions are quantized as matrices `[out, in / groups * kernel]`: trained, packed, restored, bit for bit."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from edgerazor.core.apply import apply_plan
from edgerazor.core.contracts import Quantizer
from edgerazor.core.layers.table import kind_named, kind_of, packed_kind_of
from edgerazor.core.layers.weight_cache import cached_weights
from edgerazor.core.packing import pack
from edgerazor.core.plan import Plan, build_plan
from edgerazor.core.registry import Registry
from edgerazor.errors import PlanError
from edgerazor.schemas.recipe import load_recipe

CONV = kind_named("conv")
QUANTIZERS = [
    {"name": "int", "bits": 4},
    {"name": "int", "bits": 8, "symmetric": False},
    {"name": "ternary"},
    {"name": "sqmp", "high_ratio": 0.25},
]


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """A random convolution over one or two axes, and an input for it."""
    places, groups = draw(st.integers(1, 2)), draw(st.sampled_from([1, 2, 4]))
    inputs = groups * draw(st.integers(1, 3))
    outputs = inputs if draw(st.booleans()) else groups * draw(st.integers(1, 4))
    kind: Any = (nn.Conv1d, nn.Conv2d)[places - 1]
    kernel = [draw(st.sampled_from([1, 2, 3])) for _ in range(places)]
    mode = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
    dilation = draw(st.integers(1, 2))
    same = mode == "zeros" and draw(st.booleans())
    torch.manual_seed(draw(st.integers(0, 1 << 16)))
    layer = kind(
        inputs,
        outputs,
        kernel,
        stride=1 if same else draw(st.integers(1, 2)),
        padding="same" if same else draw(st.integers(0, 2)),
        dilation=dilation,
        groups=inputs if outputs == inputs and draw(st.booleans()) else groups,
        bias=draw(st.booleans()),
        padding_mode=mode,
    )
    return layer, torch.randn(2, inputs, *[draw(st.integers(6, 8)) for _ in range(places)])


def built(registry: Registry, name: str, **params: Any) -> Quantizer:
    quantizer: Quantizer = registry.build(registry.params("quantizer", name, **params))
    return quantizer


def packed_in_place(holder: Any, activation: Quantizer | None) -> None:
    """Put the packed form of the quantized convolution `holder.layer` in its place."""
    layout, tensors = pack(CONV.codes(holder.layer))
    packed = CONV.empty_packed(holder.layer, layout, activation)
    packed.load_state_dict(tensors, strict=False)
    CONV.put_packed(holder, "layer", packed, activation)


@pytest.mark.parametrize("params", QUANTIZERS, ids=lambda params: "-".join(map(str, params.values())))
@given(case=convolutions(), activations=st.booleans())
def test_training_packing_and_restoring_compute_the_same(
    registry: Registry, params: dict[str, Any], case: tuple[Any, Tensor], activations: bool
) -> None:
    layer, x = case
    quantizer = built(registry, **params)
    activation = built(registry, "int", bits=8) if activations else None
    rows = quantizer.quantize(layer.weight.detach().flatten(1))
    expected = copy.deepcopy(layer)
    expected.weight.data = rows.dequantize().view_as(layer.weight)
    inputs = x if activation is None else activation.fake_quantize(x.movedim(1, -1).contiguous()).movedim(-1, 1)
    holder: Any = nn.Module()
    holder.layer = layer
    CONV.make_trainable(layer, quantizer, activation, None)
    assert kind_of(layer) is CONV and CONV.quantizer(layer) is quantizer
    with torch.no_grad():
        wanted = expected(inputs)
        assert torch.equal(layer(x), wanted)
        with cached_weights(holder):
            assert torch.equal(layer(x), wanted) and torch.equal(layer(x), wanted)
        assert torch.equal(CONV.codes(layer).codes, rows.codes)
        packed_in_place(holder, activation)
        assert packed_kind_of(holder.layer) is CONV
        assert torch.equal(holder.layer(x), wanted)
        assert torch.equal(copy.deepcopy(holder).layer(x), wanted)
        holder.layer.compute = "packed"
        assert torch.equal(holder.layer(x), wanted)
        CONV.leave_inputs(holder.layer)
        assert torch.equal(holder.layer(x), expected(x))
        CONV.restore(holder, "layer", nn.Parameter(CONV.values(holder.layer, torch.float32)))
    assert type(holder.layer) in (nn.Conv1d, nn.Conv2d) and CONV.quantizer(holder.layer) is None
    assert torch.equal(holder.layer(x), expected(x))
    assert set(holder.state_dict()) == {f"layer.{name}" for name in expected.state_dict()}


@given(case=convolutions())
def test_gradients_pass_straight_through_both_quantizers(registry: Registry, case: tuple[Any, Tensor]) -> None:
    layer, x = case
    quantizer, activation = built(registry, "ternary"), built(registry, "int", bits=4)
    value = nn.Parameter(quantizer.fake_quantize(layer.weight.detach().flatten(1)).view_as(layer.weight))
    inputs = activation.fake_quantize(x.movedim(1, -1).contiguous()).movedim(-1, 1).detach().requires_grad_()
    layer._conv_forward(inputs, value, layer.bias).square().sum().backward()
    expected, of_bias = value.grad, None if layer.bias is None else layer.bias.grad.clone()
    layer.zero_grad()
    CONV.make_trainable(layer, quantizer, activation, None)
    given_input = x.clone().requires_grad_()
    layer(given_input).square().sum().backward()
    assert torch.equal(layer.weight.grad, expected)
    assert torch.equal(given_input.grad, inputs.grad)
    assert of_bias is None or torch.equal(layer.bias.grad, of_bias)


class Convolutions:
    """An adapter for any model of convolutions."""

    def quantizable(self, model: nn.Module) -> Any:
        return ((name, module) for name, module in model.named_modules() if CONV.is_plain(module))

    def why_left_out(self, name: str) -> str | None:
        return None

    def role(self, name: str) -> Any:
        from edgerazor.core.contracts import TensorRole

        return TensorRole("other")

    def facts(self, config: Any) -> Any:
        from types import SimpleNamespace

        return SimpleNamespace(fused={})


def planned(model: Any, registry: Registry, *, fit: bool = False, activations: Any = None, size: int = 64) -> Plan:
    model.config = None
    quantization = {
        "weights": [{"match": "*", "quantizer": {"name": "int", "bits": 4, "group_size": size}}],
        "activations": activations,
        "fit": ["weights", "activations"] if fit and activations else ["weights"] if fit else [],
    }
    recipe = load_recipe({"model": {"name_or_path": "unused"}, "quantization": quantization}, registry=registry)
    adapter: Any = Convolutions()
    return build_plan(model, recipe.quantization, adapter=adapter, registry=registry)


def test_rows_that_no_group_divides_have_one_scale_and_the_plan_says_so(registry: Registry) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 7), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(64, 64, 1), nn.Conv2d(64, 8, 3))
    plan = planned(model, registry)
    assert {module.name: module.group_size for module in plan.modules} == {"0": 147, "1": 9, "2": 64, "3": 64}
    said = [note for note in plan.notes if "one scale a row" in note]
    assert said == [
        "0: one scale a row: no group size that engines take divides 147 columns, nor does 64",
        "1: one scale a row: no group size that engines take divides 9 columns, nor does 64",
    ]
    apply_plan(model, plan, registry=registry)
    for index, module in enumerate(plan.modules):
        scales = CONV.codes(model[index]).scale
        assert scales.shape == (module.shape[0], module.matrices.columns // module.group_size)


def test_a_size_that_is_a_wish_fits_the_rows_that_some_group_divides(registry: Registry) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 7), nn.Conv2d(64, 8, 3), nn.Conv2d(128, 8, 3))
    plan = planned(model, registry, fit=True, size=256)
    assert [module.group_size for module in plan.modules] == [147, 64, 64]


def test_a_size_that_is_written_and_fits_no_row_is_an_error(registry: Registry) -> None:
    with pytest.raises(PlanError, match=r"576 columns are not a multiple of group_size 256; 576, 288, 192"):
        planned(nn.Sequential(nn.Conv2d(64, 8, 3)), registry, size=256)


def test_inputs_are_quantized_over_the_channels(registry: Registry) -> None:
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.Conv2d(64, 8, 3))
    plan = planned(model, registry, activations={"name": "int", "bits": 8, "group_size": 32})
    apply_plan(model, plan, registry=registry)
    sizes = [layer.input_quantizer.params.group_size for layer in model]  # type: ignore[union-attr]
    assert sizes == [None, 32]
