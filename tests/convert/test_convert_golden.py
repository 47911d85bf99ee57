"""Every pair of the vectors, the original's words beside ours, converts from the one to the other."""

from typing import Any

import pytest
from pydantic import ValidationError
from torch import nn

from edgerazor.convert import convert_recipe
from edgerazor.core.plan import build_plan
from edgerazor.core.registry import Registry
from edgerazor.errors import RecipeError
from edgerazor.models.source import build_meta_model
from edgerazor.schemas.recipe import Recipe, load_recipe
from tests.convert.originals import features_loss, logits_loss
from tests.golden_cases import cases, manifest

EVERY = ("same", "different", "refused", "absent")
KEYS = {"block_size": "block_size", "w_scale_factor": "scale_factor", "mixed_precision_prop": "mixed_precision_prop"}
SELECT = {"target_types": ["linear", "embedding", "kv_cache"]}


def convert(registry: Registry, function: dict[str, Any], distillation: dict[str, Any] | None = None) -> Recipe:
    old: dict[str, Any] = {"qat_configuration": {"method": "QAT", "select": SELECT, "function": function}}
    if distillation is not None:
        old["kd_configuration"] = distillation
    return load_recipe(convert_recipe(old, registry=registry).recipe, registry=registry)


def same(registry: Registry, found: Any, ours: dict[str, Any]) -> bool:
    values = {key: value for key, value in ours.items() if key != "name"}
    if hasattr(found, "scale_dtype"):
        values["scale_dtype"] = found.scale_dtype
    return bool(found == registry.params(found.kind, ours["name"], **values))


def is_usable(registry: Registry, ours: dict[str, Any]) -> bool:
    """Whether our component exists with these parameters, whatever the shape it meets."""
    try:
        registry.params("quantizer", ours["name"], **{key: value for key, value in ours.items() if key != "name"})
    except ValidationError:
        return False
    return True


def check_function(registry: Registry, name: str, values: dict[str, Any], ours: Any) -> None:
    weights = name.startswith("weight_")
    slot = "w" if weights else "a"
    function = {f"{slot}_{KEYS[key]}": value for key, value in values.items() if key in KEYS}
    function["weight_function" if weights else "activation_function"] = name
    if ours is None or "per_tensor" in name or not is_usable(registry, ours):
        with pytest.raises(RecipeError, match=r"^qat_configuration\.function\.\w+: "):
            convert(registry, function)
        return
    quantization = convert(registry, function).quantization
    found = quantization.weights[0].quantizer if weights else quantization.activations
    assert same(registry, found, ours)


@pytest.mark.slow
@cases("quantizers", *EVERY)
def test_quantizers(registry: Registry, case: dict[str, Any]) -> None:
    check_function(registry, case["function"], case["kwargs"], case["ours"])


@cases("mixed_precision_masks", *EVERY)
def test_mixed_precision(registry: Registry, case: dict[str, Any]) -> None:
    values = {"block_size": case["block_size"], "mixed_precision_prop": case["prop"]}
    check_function(registry, case["function"], values, case["ours"])


@cases("modules", *EVERY)
def test_modules(registry: Registry, case: dict[str, Any]) -> None:
    if case["ours"] is None:
        old = {"select": {"target_types": [case["class"].lower()]}, "function": case["function"]}
        with pytest.raises(RecipeError, match=r"target_types\[0\]: 'conv2d' has no counterpart: convolutions"):
            convert_recipe(old, registry=registry)
        return
    quantization = convert(registry, case["function"]).quantization
    assert same(registry, quantization.weights[0].quantizer, case["ours"]["weight"])
    wanted = case["ours"]["input"]
    assert wanted is None or same(registry, quantization.activations, wanted)
    assert (quantization.activations is None) == (wanted is None)


def resolved(registry: Registry, loss: Any, depth: int) -> Any:
    """A loss with layer names and negative numbers as the numbers they mean in a model of that depth."""
    values = loss.model_dump()
    if values.get("layers", {}).get("name") == "fixed":
        values["layers"]["layers"] = registry.build(loss.layers).fixed_layers(depth)
    return values


@cases("kd_composition", *EVERY)
def test_losses(registry: Registry, case: dict[str, Any]) -> None:
    """The models of these cases have four layers."""
    function = {"w_block_size": 64}
    if case["expect"] == "refused":
        with pytest.raises(RecipeError, match=r"kd_configuration\.loss_\d\.layer_index: "):
            convert(registry, function, case["config"])
        return
    found = convert(registry, function, case["config"]).distillation
    ours = load_recipe(
        {"model": {"name_or_path": "x"}, "quantization": {"weights": [{"match": "*", "quantizer": None}]}}
        | {"distillation": case["ours"]},
        registry=registry,
    ).distillation
    assert found is not None and ours is not None and found.task_weight == ours.task_weight
    converted, written = ([resolved(registry, loss, 4) for loss in section.losses] for section in (found, ours))
    assert converted == written


@cases("layer_selection", "same", "different", part="adaptive")
def test_layers_chosen_by_the_teacher(registry: Registry, case: dict[str, Any]) -> None:
    loss = features_loss(layer_index_adaptive_metric=case["metric"], layer_index_adaptive_topk=case["topk"])
    found = convert(registry, {"w_block_size": 64}, {"loss_1": loss}).distillation
    assert found is not None and same(registry, found.losses[0].layers, case["ours"])


@cases("layer_selection", *EVERY, part="fixed")
def test_layers_that_are_named(registry: Registry, case: dict[str, Any]) -> None:
    loss = features_loss(layer_index=case["layer_index"])
    found = convert(registry, {"w_block_size": 64}, {"loss_1": loss, "loss_2": logits_loss()}).distillation
    assert found is not None and same(registry, found.losses[0].layers, case["ours"])


@pytest.fixture(scope="module")
def tiny() -> nn.Module:
    from transformers import Qwen3Config

    return build_meta_model(Qwen3Config(**manifest()["tiny_qwen3"]["model_config"]))


@cases("tiny_qwen3", "same")
def test_whole_configurations(registry: Registry, tiny: nn.Module, case: dict[str, Any]) -> None:
    old = {"qat_configuration": case["qat_configuration"], "kd_configuration": case["kd_configuration"]}
    converted = load_recipe(convert_recipe(old, registry=registry).recipe, registry=registry)
    ours = load_recipe({"model": {"name_or_path": "tiny"}, **case["ours"]}, registry=registry)
    assert converted.distillation == ours.distillation
    adapter = registry.adapter_for("qwen3")
    found, expected = (
        build_plan(tiny, recipe.quantization, adapter=adapter, registry=registry) for recipe in (converted, ours)
    )
    assert {module.name: module.params for module in found.modules} == {
        module.name: module.params for module in expected.modules
    }
    assert (found.activations, found.kv_cache) == (expected.activations, expected.kv_cache)
