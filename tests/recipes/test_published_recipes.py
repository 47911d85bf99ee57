"""Every recipe of the repository is read and planned against its model's real shape, and gives the published sizes."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from edgerazor.core.plan import Plan, build_plan
from edgerazor.core.registry import Registry
from edgerazor.pipeline.distill import Distiller
from edgerazor.pipeline.model import adapter_for, build_meta_model
from edgerazor.pipeline.train.arguments import build_training_arguments
from edgerazor.schemas.recipe import Recipe, load_recipe
from tests.recipes.published import published_config

FOLDER = Path(__file__).parents[2] / "recipes"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
SIZES = {
    "qwen3-0.6b": {"4": 3.94, "2.79": 5.05, "1.88": 6.40, "1.58": 7.03},
    "qwen3-1.7b": {"4": 3.938, "2.79": 5.208, "1.88": 6.870, "1.58": 7.688},
    "mobilellm-350m": {"4": 3.763, "2.79": 4.939, "1.88": 6.450, "1.58": 7.182},
}
# Epochs of the runs whose length is not given in steps.
EPOCHS = {"qwen3-0.6b": 1, "qwen3-1.7b": 2, "mobilellm-350m": 5, "qwen2.5-omni-7b": 2}
# Sequences a step on 8 GPUs.
BATCHES = {"qwen3-0.6b": 1024, "qwen3-1.7b": 1536, "mobilellm-350m": 1920, "qwen2.5-omni-7b": 64}
PUBLISHED = {f"{model}-{bits}-bit" for model, sizes in SIZES.items() for bits in sizes} | {"qwen2.5-omni-7b-4-bit"}
recipes = pytest.mark.parametrize("name", RECIPES)


def model_and_bits(name: str) -> tuple[str, str]:
    model, _, rest = name.partition("-bit")[0].rpartition("-")
    assert rest
    return model, rest


@cache
def read(name: str, registry: Registry) -> Recipe:
    return load_recipe(FOLDER / f"{name}.yaml", registry=registry)


@cache
def planned(name: str, registry: Registry) -> tuple[Plan, Any]:
    recipe = read(name, registry)
    config = published_config(recipe.model.name_or_path)
    model, adapter = build_meta_model(config), adapter_for(config, recipe.model, registry)
    return build_plan(model, recipe.quantization, adapter=adapter, registry=registry), config


def test_there_is_a_recipe_for_every_published_configuration() -> None:
    assert set(RECIPES) >= PUBLISHED


@recipes
def test_the_plan_gives_the_published_compression_and_coverage(registry: Registry, name: str) -> None:
    model, bits = model_and_bits(name)
    plan, _ = planned(name, registry)
    assert plan.activations is not None and plan.kv_cache is not None
    if model in SIZES:
        digits = len(str(SIZES[model][bits]).partition(".")[2])
        assert round(plan.compression, max(digits, 2)) == SIZES[model][bits]
        assert f"{plan.coverage:.2%}" == ("99.98%" if model == "mobilellm-350m" else "99.99%")
        assert not plan.matrices_left_out
    if model == "qwen3-0.6b":
        assert plan.parameters == 596_049_920


def test_omni_quantizes_text_and_vision_and_says_what_it_leaves_out(registry: Registry) -> None:
    plan, _ = planned("qwen2.5-omni-7b-4-bit", registry)
    left = plan.matrices_left_out
    down = {f"model.visual.blocks.{index}.mlp.down_proj.weight" for index in range(32)}
    assert {name for name in left if ".audio_tower." not in name} == down | {"model.visual.patch_embed.proj.weight"}
    assert not any(".audio_tower." in module.name for module in plan.modules)
    assert {module.nominal_bits for module in plan.quantized} == {4.0} and plan.effective_bits == 4.5
    text = sum(module.weights for module in plan.quantized if ".visual." not in module.name)
    layer = 3584 * 3584 * 2 + 3584 * 512 * 2 + 3 * 3584 * 18_944
    assert text == 28 * layer + 2 * 152_064 * 3584
    assert any("visual.blocks.{0-31}.mlp.down_proj" in note and "3420 columns" in note for note in plan.notes)
    assert any("patch_embed.proj" in note and "convolutions are not quantized" in note for note in plan.notes)


@recipes
def test_the_published_hyper_parameters_are_in_it(registry: Registry, name: str, tmp_path: Path) -> None:
    model, bits = model_and_bits(name)
    recipe = read(name, registry)
    training = recipe.training
    arguments = build_training_arguments(training, recipe.evaluation, tmp_path)
    assert arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * 8 == BATCHES[model]
    assert arguments.optim == "adamw_8bit" and training.seed == 3407 and training.bf16
    assert (training.adam_beta1, training.adam_beta2, training.adam_epsilon) == (0.9, 0.95, 1e-8)
    omni = model.startswith("qwen2.5")
    assert training.learning_rate == (5e-6 if omni else 2e-5)
    assert training.gradient_checkpointing is not omni
    assert training.train_parameters == ("quantized" if omni else "all")
    assert training.max_steps == (2000 if bits == "4" and not omni else -1)
    if training.max_steps < 0:
        assert training.num_train_epochs == (4 if name == "mobilellm-350m-2.79-bit" else EPOCHS[model])
    assert recipe.data is not None and recipe.data.sequence_length == 1024 and not recipe.data.packing


@recipes
def test_its_losses_fit_its_model(registry: Registry, name: str) -> None:
    recipe, (_, config) = read(name, registry), planned(name, registry)
    adapter = adapter_for(config, recipe.model, registry)
    composed = Distiller.from_recipe(recipe.distillation, registry=registry, adapter=adapter)
    composed.check_models(config.get_text_config(), config.get_text_config())
    assert composed.names == ["eakld", "feature_mse"]


@recipes
def test_training_on_benchmarks_is_said(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert ("task_0.2M_instruct" in text) == ("# The training splits of nine of the benchmarks" in text)
    assert not ("without-benchmarks" in name and "task_0.2M" in text)
