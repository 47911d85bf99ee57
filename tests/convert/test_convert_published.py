"""The published configurations, converted, are the recipes of this repository."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from edgerazor.convert import convert_recipe
from edgerazor.core.plan import Plan, build_plan
from edgerazor.core.registry import Registry
from edgerazor.models.source import build_meta_model
from edgerazor.schemas.recipe import Recipe, load_recipe
from tests.convert.originals import PUBLISHED, published
from tests.recipes.published import published_config

RECIPES = Path(__file__).parents[2] / "recipes"
CASES = [(model, bits) for model, (_, _, weights) in PUBLISHED.items() for bits in weights]


@cache
def model_of(name: str) -> nn.Module:
    return build_meta_model(published_config(name))


def plan(recipe: Recipe, model: nn.Module, registry: Registry) -> Plan:
    adapter = registry.adapter_for(recipe.model.family or model.config.model_type)  # type: ignore[union-attr, arg-type]
    return build_plan(model, recipe.quantization, adapter=adapter, registry=registry)


def given(plan: Plan) -> dict[str, Any]:
    return {module.name: module.params for module in plan.modules}


@pytest.mark.slow
@pytest.mark.parametrize(("model", "bits"), CASES)
def test_the_converted_configuration_is_the_recipe(registry: Registry, model: str, bits: str) -> None:
    ours = load_recipe(RECIPES / f"{model}-{bits}-bit.yaml", registry=registry)
    converted = convert_recipe(published(model, bits), registry=registry, model=ours.model.name_or_path)
    recipe = load_recipe(converted.recipe, registry=registry)
    assert recipe.distillation == ours.distillation
    assert recipe.model.name_or_path == ours.model.name_or_path
    built = model_of(ours.model.name_or_path)
    found, expected = plan(recipe, built, registry), plan(ours, built, registry)
    assert given(found) == given(expected)
    assert (found.activations, found.kv_cache) == (expected.activations, expected.kv_cache)
    assert found.compression == expected.compression


def test_what_is_never_quantized_here_needs_no_rule(registry: Registry) -> None:
    converted = convert_recipe(published("qwen2.5-omni-7b", "4"), registry=registry, model="Qwen/Qwen2.5-Omni-7B")
    quantizer = {"name": "int", "bits": 4, "group_size": 32}
    assert converted.recipe["quantization"]["weights"] == [{"match": "*", "quantizer": quantizer}]
    for index, name in enumerate(["thinker.audio_tower", "thinker.visual", "talker", "token2wav"]):
        path = f"qat_configuration.select.exclude_names[{index}]: '{name}"
        assert any(note.startswith(path) and "never quantized here" in note for note in converted.notes)


def test_what_the_original_quantizes_and_we_do_not_is_said(registry: Registry) -> None:
    """The script of the published Omni run does not exclude the down projections of the visual tower."""
    old = published("qwen2.5-omni-7b", "4")
    old["qat_configuration"]["select"]["exclude_names"].remove("thinker.visual.blocks.*.mlp.down_proj.*")
    notes = convert_recipe(old, registry=registry, model="Qwen/Qwen2.5-Omni-7B").notes
    assert any("thinker.visual.blocks.*.mlp.down_proj: quantized by the original, stays" in note for note in notes)
