"""The recipes of image classifiers fit the real models by their shapes, and the guide says what comes of them."""

from pathlib import Path
from typing import Any

import pytest
from transformers import ResNetConfig, ViTConfig

from edgerazor.core.registry import Registry
from edgerazor.distill import Distiller
from edgerazor.models.load import plan_recipe
from edgerazor.schemas.preset import preset_names
from edgerazor.schemas.recipe import load_recipe

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.stem for path in (ROOT / "recipes" / "images").glob("*.yaml"))
PAGE = (ROOT / "docs" / "guide" / "images.md").read_text(encoding="utf-8")


def real_config(name: str) -> Any:
    """Sizes of the published model, with the thousand classes of ImageNet."""
    if name.startswith("vit"):
        sizes = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536}
        return ViTConfig(num_labels=1000, **sizes)
    widths = {"embedding_size": 64, "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2]}
    return ResNetConfig(num_labels=1000, layer_type="basic", **widths)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_fits_its_model(registry: Registry, tmp_path: Path, name: str) -> None:
    config = real_config(name)
    config.save_pretrained(tmp_path)
    path, overrides = ROOT / "recipes" / "images" / f"{name}.yaml", [f"model.name_or_path={tmp_path}"]
    recipe = load_recipe(path, registry=registry, overrides=overrides)
    plan = plan_recipe(recipe, registry=registry)
    assert plan.coverage > 0.99 and plan.activations is not None and plan.kv_cache is None
    first, head = plan.quantized[0], plan.quantized[-1]
    assert {first.nominal_bits, head.nominal_bits} == {8.0 if name.startswith("resnet") else 4.0}
    assert sum(module.weights for module in plan.quantized if 1.58 < module.nominal_bits < 2) / plan.parameters > 0.9
    adapter = registry.adapter_for(config.model_type)
    Distiller.from_recipe(recipe.distillation, registry=registry, adapter=adapter).check_models(config, config)


@pytest.mark.parametrize("name", ["vit", "resnet"])
@pytest.mark.parametrize("preset", [name for name in preset_names() if name[0].isdigit() and name[-3:] == "bit"])
def test_sizes_by_shape_are_those_of_the_guide(registry: Registry, tmp_path: Path, name: str, preset: str) -> None:
    real_config(name).save_pretrained(tmp_path)
    recipe = load_recipe({"model": {"name_or_path": str(tmp_path)}, "preset": preset}, registry=registry)
    plan = plan_recipe(recipe, registry=registry)
    model = {"vit": "ViT-S/16", "resnet": "ResNet-18"}[name]
    figures = f"{plan.coverage:.2%} | {plan.effective_bits:.2f} | {plan.bytes / 1e6:.2f} MB"
    assert f"| {model} | {preset} | {figures} |".replace("%", " %") in PAGE
