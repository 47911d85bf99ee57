"""Every recipe of the repository is read and planned against its model's real shape, and gives the published sizes."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from edgerazor.core.plan import Plan, build_plan
from edgerazor.core.registry import Registry
from edgerazor.distill import Distiller
from edgerazor.models.source import build_meta_model
from edgerazor.schemas.quantization import QuantizationSection
from edgerazor.schemas.recipe import Recipe, load_recipe
from edgerazor.training.arguments import build_training_arguments
from tests.recipes.published import published_config

FOLDER = Path(__file__).parents[2] / "recipes"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
# 16-bit size over the size in bits, and megabytes: computed from shapes (METHOD 2.4).
SIZES = {
    "qwen3-0.6b": {"4": (3.937, 302.8), "2.79": (5.048, 236.2), "1.88": (6.402, 186.2), "1.58": (7.031, 169.6)},
    "qwen3-1.7b": {"4": (3.938, 873.9), "2.79": (5.208, 660.8), "1.88": (6.870, 500.9), "1.58": (7.688, 447.6)},
    "mobilellm-350m": {"4": (3.763, 199.9), "2.79": (4.939, 152.3), "1.88": (6.450, 116.6), "1.58": (7.182, 104.7)},
}
# What the paper prints for Qwen3-0.6B.
PRINTED = {"4": "3.94", "2.79": "5.05", "1.88": "6.40", "1.58": "7.03"}


@dataclass(frozen=True)
class Run:
    """How the models of one size were trained (METHOD 6)."""

    sequences: int
    epochs: int
    learning_rate: float = 2e-5
    scheduler: str = "constant_with_warmup"
    warmup: float = 0.05
    weight_decay: float = 0.01
    checkpointing: bool = True
    parameters: str = "all"


RUNS = {
    "qwen3-0.6b": Run(8 * 16 * 8, 1),
    "qwen3-1.7b": Run(12 * 16 * 8, 2),
    "mobilellm-350m": Run(60 * 4 * 8, 5, scheduler="cosine", warmup=0.01),
    "qwen2.5-omni-7b": Run(1 * 8 * 8, 2, 5e-6, "cosine", 0.01, 0.1, checkpointing=False, parameters="quantized"),
}
EPOCHS = {"mobilellm-350m-2.79-bit": 4}
# Thousands of dialogues in each file (METHOD 7).
DIALOGUES = {
    "ii_7M_instruct": 7450,
    "ii_gen_1.4M_instruct": 1460,
    "tulu_0.6M_instruct": 610,
    "am_1.4M_instruct": 1400,
    "task_0.2M_instruct": 240,
    "ii_1.5M_base": 1480,
}
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
    model, adapter = build_meta_model(config), registry.adapter_for(recipe.model.family or config.model_type)
    return build_plan(model, recipe.quantization, adapter=adapter, registry=registry), config


def test_there_is_a_recipe_for_every_published_configuration() -> None:
    assert set(RECIPES) >= PUBLISHED


@pytest.mark.slow
@recipes
def test_the_plan_gives_the_published_compression_and_coverage(registry: Registry, name: str) -> None:
    model, bits = model_and_bits(name)
    plan, _ = planned(name, registry)
    assert plan.activations is not None and plan.kv_cache is not None
    if model in SIZES:
        compression, megabytes = SIZES[model][bits]
        assert round(plan.compression, 3) == compression
        assert round(2e-6 * plan.parameters / plan.compression, 1) == megabytes
        assert f"{plan.coverage:.2%}" == ("99.98%" if model == "mobilellm-350m" else "99.99%")
        assert not plan.matrices_left_out
    if model == "qwen3-0.6b":
        assert f"{plan.compression:.2f}" == PRINTED[bits]
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


def test_linears_alone_are_what_earlier_methods_cover(registry: Registry) -> None:
    """Embedding and head at 16 bit leave 73.89 % of Qwen3-0.6B, and 2.94 is the most that 1.58 bits can give."""
    recipe = read("qwen3-0.6b-1.58-bit", registry)
    rules = [
        {"match": ["*.embed_tokens", "lm_head"], "quantizer": None},
        {"match": "*", "quantizer": {"name": "ternary", "group_size": 128}},
    ]
    section = QuantizationSection.model_validate({"weights": rules}, context={"registry": registry})
    config = published_config(recipe.model.name_or_path)
    adapter = registry.adapter_for(recipe.model.family or config.model_type)
    plan = build_plan(build_meta_model(config), section, adapter=adapter, registry=registry)
    assert f"{plan.coverage:.2%}" == "73.89%" and f"{plan.compression:.2f}" == "2.94"


@recipes
def test_the_published_hyper_parameters_are_in_it(registry: Registry, name: str, tmp_path: Path) -> None:
    model, bits = model_and_bits(name)
    recipe, run = read(name, registry), RUNS[model]
    training, data = recipe.training, recipe.data
    arguments = build_training_arguments(training, recipe.evaluation, tmp_path)
    assert arguments.save_on_each_node is False
    assert arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * 8 == run.sequences
    assert (arguments.optim, training.seed, training.bf16, training.max_grad_norm) == ("adamw_8bit", 3407, True, 1.0)
    assert (training.adam_beta1, training.adam_beta2, training.adam_epsilon) == (0.9, 0.95, 1e-8)
    assert (training.learning_rate, training.lr_scheduler_type) == (run.learning_rate, run.scheduler)
    assert (training.warmup_steps, training.weight_decay) == (run.warmup, run.weight_decay)
    assert (training.gradient_checkpointing, training.train_parameters) == (run.checkpointing, run.parameters)
    assert training.dataloader_drop_last and recipe.evaluation.every_steps is None
    fixed = bits == "4" and model in SIZES
    assert training.max_steps == (2000 if fixed else -1)
    assert fixed or training.num_train_epochs == EPOCHS.get(name, run.epochs)
    assert data is not None and (data.sequence_length, data.packing, data.seed) == (1024, False, 3407)
    assert data.held_out is None and bool(data.system_prompt) == model.startswith("qwen3")


@recipes
def test_the_shares_are_those_of_the_published_files(registry: Registry, name: str) -> None:
    data = read(name, registry).data
    assert data is not None
    files = {Path(source.path).stem: source.ratio for source in data.sources}
    if set(files) == {"tgif_10k"}:
        return
    total = sum(DIALOGUES[file] for file in files)
    assert files == {file: pytest.approx(DIALOGUES[file] / total, abs=6e-5) for file in files}
    assert len(files) == {"qwen3": 5, "mobil": 2}[name[:5]] - ("without-benchmarks" in name)


@recipes
def test_its_losses_fit_its_model(registry: Registry, name: str) -> None:
    recipe, (_, config) = read(name, registry), planned(name, registry)
    adapter = registry.adapter_for(recipe.model.family or config.model_type)
    composed = Distiller.from_recipe(recipe.distillation, registry=registry, adapter=adapter)
    composed.check_models(config, config)
    assert composed.names == ["eakld", "feature_mse"]


@recipes
def test_training_on_benchmarks_is_said(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert ("task_0.2M_instruct" in text) == ("# The training splits of nine of the benchmarks" in text)
    assert not ("without-benchmarks" in name and "task_0.2M" in text)
