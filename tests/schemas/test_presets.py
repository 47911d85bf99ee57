"""Presets: sized and weighted by the family; what the recipe writes replaces a whole section."""

import json
from pathlib import Path
from typing import Any

import pytest

from edgerazor.core.registry import Registry
from edgerazor.errors import RecipeError
from edgerazor.schemas.preset import preset_names
from edgerazor.schemas.recipe import Recipe, load_recipe

QWEN = {"name_or_path": "x", "family": "qwen3"}
LLAMA = {"name_or_path": "x", "family": "llama"}
SIZES = {"weights": 32, "activations": 64, "kv_cache": 16}


def load(registry: Registry, **content: Any) -> Recipe:
    return load_recipe(content, registry=registry)


def message(registry: Registry, **content: Any) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(registry, **content)
    return caught.value.problems


@pytest.mark.parametrize("name", [name for name in preset_names() if "mixed" not in name])
def test_presets_of_qwen3(name: str, registry: Registry) -> None:
    """Group sizes 256, 256 and 128, embedding and head at 4 bits, and the family's loss weights (METHOD 5)."""
    recipe = load(registry, model=QWEN, preset=name)
    section, distillation = recipe.quantization, recipe.distillation
    assert section.weights[0].match == ("*.embed_tokens", "lm_head")
    assert section.weights[0].quantizer.model_dump()["bits"] == 4  # type: ignore[union-attr]
    assert [rule.quantizer.group_size for rule in section.weights] == [256] * len(section.weights)  # type: ignore[union-attr]
    assert section.activations.group_size == 256  # type: ignore[union-attr]
    assert section.kv_cache.group_size == 128  # type: ignore[union-attr]
    weights = (distillation.task_weight, *(loss.weight for loss in distillation.losses))  # type: ignore[union-attr]
    ours = name.startswith("edgerazor-")
    task, feature = (0.05, 0.5) if name.endswith("4-bit") else (0.1, 0.1)
    assert weights == (task, 2.0, 30.0 if ours else feature)
    assert distillation.losses[1].relative is ours  # type: ignore[union-attr]
    quantizers = [rule.quantizer.model_dump() for rule in section.weights if rule.quantizer]
    scales = {values["scale"] for values in quantizers if values["name"] == "int"}
    assert scales == {"signed_absmax" if ours else "absmax"}
    assert not any("scale" in values for values in quantizers if values["name"] == "sqmp")


def test_the_names_say_the_bits(registry: Registry) -> None:
    def body(name: str) -> dict[str, Any]:
        rule = load(registry, model=QWEN, preset=name).quantization.weights[-1]
        return rule.model_dump()["quantizer"]

    assert body("1.58-bit")["name"] == "ternary"
    assert (body("1.88-bit")["name"], body("1.88-bit")["high_ratio"]) == ("sqmp", 0.125)
    assert (body("2.79-bit")["name"], body("2.79-bit")["high_ratio"]) == ("sqmp", 0.5)
    assert (body("4-bit")["name"], body("4-bit")["bits"]) == ("int", 4)


@pytest.mark.parametrize("name", ["4-bit-mixed", "edgerazor-4-bit-mixed"])
def test_a_mixed_preset_has_eight_bits_where_few_weights_cost_most(name: str, registry: Registry) -> None:
    recipe = load(registry, model=QWEN, preset=name)
    rules = [(rule.match, rule.model_dump()["quantizer"]) for rule in recipe.quantization.weights]
    assert [match for match, _ in rules] == [("*.embed_tokens", "lm_head"), ("*.k_proj", "*.v_proj"), ("*",)]
    assert [quantizer["bits"] for _, quantizer in rules] == [8, 8, 4]
    assert [quantizer["scale"] for _, quantizer in rules] == ["absmax", "absmax", "signed_absmax"]
    assert {quantizer["group_size"] for _, quantizer in rules} == {32}
    assert recipe.quantization.activations.group_size == 32  # type: ignore[union-attr]
    assert recipe.quantization.kv_cache.group_size == 128  # type: ignore[union-attr]
    assert recipe.distillation.task_weight == 0.05  # type: ignore[union-attr]
    assert load_recipe(recipe.to_dict(), registry=registry) == recipe
    wider = load(registry, model=QWEN, preset={"name": name, "group_sizes": {"weights": 64}})
    assert wider.quantization.weights[2].quantizer.group_size == 64  # type: ignore[union-attr]


def test_the_family_is_read_from_the_model_folder(tmp_path: Path, registry: Registry) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3"}), encoding="utf-8")
    recipe = load(registry, model={"name_or_path": str(tmp_path)}, preset="1.88-bit")
    assert recipe.quantization.kv_cache.group_size == 128  # type: ignore[union-attr]
    assert recipe.distillation.task_weight == 0.1  # type: ignore[union-attr]


def test_written_sizes_win_one_by_one(registry: Registry) -> None:
    recipe = load(registry, model=QWEN, preset={"name": "4-bit", "group_sizes": {"kv_cache": 64}})
    assert recipe.quantization.kv_cache.group_size == 64  # type: ignore[union-attr]
    assert recipe.quantization.activations.group_size == 256  # type: ignore[union-attr]
    assert recipe.quantization.fit == ("weights", "activations")
    recipe = load(registry, model=LLAMA, preset={"name": "4-bit", "group_sizes": SIZES})
    assert recipe.quantization.fit == () and "fit" not in recipe.to_dict()["quantization"]
    assert recipe.quantization.weights[0].quantizer.group_size == 32  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["1.88-bit", "edgerazor-1.88-bit"])
@pytest.mark.parametrize(
    "switch", [{}, {"scale_dtype": None}, {"scale_dtype": "float16_bfloat16"}, {"scale_dtype": "float16"}]
)
def test_scales_that_every_engine_holds_are_a_switch_and_the_default_of_our_own_presets(
    switch: dict[str, Any], name: str, registry: Registry
) -> None:
    usual = "float16" if name == "1.88-bit" else "float16_bfloat16"
    expected = switch.get("scale_dtype") or usual
    recipe = load(registry, model=QWEN, preset={"name": name, **switch})
    section = recipe.quantization
    assert {rule.quantizer.scale_dtype for rule in section.weights} == {expected}  # type: ignore[union-attr]
    assert section.activations.scale_dtype == "float32"  # type: ignore[union-attr]
    # A published preset writes down what the recipe says, as recipes of earlier versions do.
    assert recipe.to_dict()["preset"]["scale_dtype"] == (expected if name != "1.88-bit" else switch.get("scale_dtype"))
    assert load_recipe(recipe.to_dict(), registry=registry) == recipe


def test_scales_of_another_type_are_refused(registry: Registry) -> None:
    (problem,) = message(registry, model=QWEN, preset={"name": "1.88-bit", "scale_dtype": "bfloat16"})
    assert problem.startswith("recipe: preset.scale_dtype: ") and "float16_bfloat16" in problem


def test_a_family_without_sizes_gets_those_that_fit(registry: Registry) -> None:
    section = load(registry, model=LLAMA, preset="4-bit").quantization
    assert section.fit == ("weights", "activations", "kv_cache")
    assert [rule.quantizer.group_size for rule in section.weights] == [256, 256]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("override", "left"),
    [
        ("quantization.weights[1].quantizer.group_size=64", ("activations", "kv_cache")),
        ("quantization.kv_cache={name: int, bits: 8, group_size: 16}", ("weights", "activations")),
        ("quantization.weights[0].quantizer={name: ternary, 'group_size': 64}", ("activations", "kv_cache")),
        ("quantization.activations.bits=6", ("weights", "activations", "kv_cache")),
        ("quantization.weights[1].match=['*.group_size']", ("weights", "activations", "kv_cache")),
    ],
)
def test_a_size_that_an_override_writes_is_no_wish(override: str, left: tuple[str, ...], registry: Registry) -> None:
    recipe = load_recipe({"model": LLAMA, "preset": "4-bit"}, registry=registry, overrides=[override])
    assert recipe.quantization.fit == left


def test_a_family_that_is_not_known_is_an_error(tmp_path: Path, registry: Registry) -> None:
    """Its loss weights and sizes would be others."""
    (problem,) = message(registry, model={"name_or_path": str(tmp_path)}, preset="4-bit")
    assert problem.startswith(
        f"recipe: preset: the model's family is not known, because '{tmp_path}' has no config.json on this machine; "
        "set model.family to one of beit, deit, gemma3_text, granite"
    )


def test_a_misspelt_preset(registry: Registry) -> None:
    assert message(registry, model=QWEN, preset="1.8-bit") == [
        "recipe: preset: no preset named '1.8-bit'; did you mean '1.88-bit'?"
    ]
    assert message(registry, model=QWEN, preset={"name": "4-bit", "group_sizes": {"weight": 64}}) == [
        "recipe: preset.group_sizes: group_sizes has no 'weight'; did you mean 'weights'?"
    ]


@pytest.mark.parametrize("preset", ["1.99-bitt", {"name": "1.99-bitt"}], ids=["name", "mapping"])
def test_a_misspelt_preset_is_named_where_nothing_is_taken_from_it(preset: Any, registry: Registry) -> None:
    written = load(registry, model=QWEN, preset="1.88-bit").to_dict()
    sections = {key: written[key] for key in ("quantization", "distillation")}
    (problem,) = message(registry, model=QWEN, preset=preset, **sections)
    assert problem.startswith("recipe: preset: no preset named '1.99-bitt'; did you mean '")


def test_a_preset_beside_both_sections_says_where_they_came_from(registry: Registry) -> None:
    written = load(registry, model=QWEN, preset="1.88-bit").to_dict()
    sections = {key: written[key] for key in ("quantization", "distillation")}
    recipe = load(registry, model=QWEN, preset="4-bit", **sections)
    assert recipe.preset is not None and recipe.preset.name == "4-bit"
    assert recipe.to_dict()["quantization"] == written["quantization"]


def test_a_section_that_is_written_replaces_the_presets_whole(registry: Registry) -> None:
    own = {"losses": [{"name": "forward_kl"}]}
    recipe = load(registry, model=QWEN, preset="1.88-bit", distillation=own)
    assert [loss.name for loss in recipe.distillation.losses] == ["forward_kl"]  # type: ignore[union-attr]
    assert len(recipe.quantization.weights) == 2
    only_weights = {"weights": [{"match": "*", "quantizer": "ternary"}]}
    recipe = load(registry, model=QWEN, preset="1.88-bit", quantization=only_weights)
    assert recipe.quantization.activations is None and recipe.quantization.kv_cache is None
    assert [loss.name for loss in recipe.distillation.losses] == ["eakld", "feature_mse"]  # type: ignore[union-attr]
    assert load(registry, model=QWEN, preset="1.88-bit", distillation=None).distillation is None


@pytest.mark.parametrize("family", ["vit", "resnet"])
@pytest.mark.parametrize("name", preset_names())
def test_presets_of_image_classifiers_have_no_cache(name: str, family: str, registry: Registry) -> None:
    recipe = load(registry, model={"name_or_path": "x", "family": family}, preset=name)
    first = {"vit": "*.patch_embeddings.projection", "resnet": "*.embedder.embedder.convolution"}[family]
    head = {"vit": "classifier", "resnet": "classifier.1"}[family]
    assert recipe.quantization.weights[0].match == (first, head)
    assert recipe.quantization.kv_cache is None and "kv_cache" not in recipe.quantization.fit
    assert recipe.distillation is not None
    metric = recipe.distillation.losses[1].layers.metric  # type: ignore[attr-defined]
    assert metric == {"vit": "cosine", "resnet": "norm"}[family]


@pytest.mark.parametrize("name", preset_names())
def test_our_own_presets_begin_at_calibrated_rounding_and_choose_widths_that_they_mix(
    name: str, registry: Registry
) -> None:
    recipe = load(registry, model=QWEN, preset=name, training={"seed": 1})
    mixes = any(rule.quantizer is not None and rule.quantizer.name == "sqmp" for rule in recipe.quantization.weights)
    allocation = recipe.training.allocation
    assert (allocation is not None) is (mixes and name.startswith("edgerazor-"))
    assert recipe.training.start == ("calibrated" if name.startswith("edgerazor-") else "model")
    assert recipe.training.seed == 1 and load_recipe(recipe.to_dict(), registry=registry) == recipe
    if allocation is not None:
        signed = "{name: int, bits: 4, symmetric: false, scale: signed_absmax}"
        assert (allocation.free, allocation.candidates) == (True, ("ternary", signed))


@pytest.mark.parametrize(
    "content",
    [
        {"training": {"allocation": False}},
        {"training": {"allocation": None}},
        {"training": {"start": "student"}},
        {"quantization": {"weights": [{"match": "*", "quantizer": {"name": "sqmp", "high_ratio": 0.125}}]}},
        {"data": {"task": "image_classification", "sources": ["pictures"]}},
    ],
    ids=str,
)
def test_widths_that_are_settled_are_not_chosen_again(content: dict[str, Any], registry: Registry) -> None:
    recipe = load(registry, model=QWEN, preset="edgerazor-1.88-bit", **content)
    assert recipe.training.allocation is None
    untouched = "quantization" in content or "data" in content
    assert recipe.training.start == content.get("training", {}).get("start", "model" if untouched else "calibrated")


def test_a_start_that_is_set_on_the_command_line_settles_the_widths_too(registry: Registry) -> None:
    content = {"model": QWEN, "preset": "edgerazor-1.88-bit"}
    recipe = load_recipe(content, registry=registry, overrides=["training.start=student"])
    assert (recipe.training.start, recipe.training.allocation) == ("student", None)
    recipe = load_recipe(content, registry=registry, overrides=["training.start=model"])
    assert recipe.training.start == "model" and recipe.training.allocation is not None


def test_what_a_recipe_writes_of_an_allocation_wins_whole(registry: Registry) -> None:
    recipe = load(registry, model=QWEN, preset="edgerazor-2.79-bit", training={"allocation": {"rows": True}})
    assert recipe.training.allocation is not None
    assert recipe.training.allocation.rows and recipe.training.allocation.candidates is None
