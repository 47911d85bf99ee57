"""Reading recipes: one meaning in YAML, JSON and dict; every fault at once, with its place and the nearest name."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgerazor.core.registry import Registry
from edgerazor.errors import RecipeError
from edgerazor.schemas.preset import preset_names
from edgerazor.schemas.recipe import Recipe, load_recipe

RECIPE: dict[str, Any] = {
    "model": {"name_or_path": "somewhere/model", "family": "qwen3", "teacher": "somewhere/teacher"},
    "data": {"sources": [{"path": "a.jsonl", "ratio": 0.7}, {"path": "b.txt", "ratio": 0.3}], "held_out": 0.1},
    "quantization": {
        "weights": [
            {"match": ["*.embed_tokens", "lm_head"], "quantizer": {"name": "int", "bits": 4, "group_size": 64}},
            {"match": "*.o_proj", "quantizer": None},
            {"match": "*", "quantizer": {"name": "sqmp", "high_ratio": "1/8", "group_size": 64}},
        ],
        "activations": {"name": "int", "bits": 8},
        "kv_cache": {"name": "int", "bits": 8, "group_size": 32},
    },
    "distillation": {
        "task_weight": 0.1,
        "losses": [
            {"name": "eakld", "weight": 2.0},
            {"name": "feature_mse", "weight": 0.1, "layers": {"name": "fixed", "layers": ["low", -1]}},
        ],
    },
    "training": {"max_steps": 3, "extra": {"adafactor": False}},
    "evaluation": {"metrics": ["loss"]},
}


def problems(content: Mapping[str, Any], registry: Registry, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(content, registry=registry, overrides=overrides)
    return caught.value.problems


def with_section(**sections: Any) -> dict[str, Any]:
    return {**RECIPE, **sections}


def test_yaml_json_and_dict_give_equal_recipes(tmp_path: Path, registry: Registry) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    (tmp_path / "recipe.json").write_text(json.dumps(RECIPE), encoding="utf-8")
    expected = load_recipe(RECIPE, registry=registry)
    assert load_recipe(tmp_path / "recipe.yaml", registry=registry) == expected
    assert load_recipe(str(tmp_path / "recipe.json"), registry=registry) == expected


@pytest.mark.parametrize("preset", [None, *preset_names()])
def test_the_resolved_recipe_reads_back_equal(preset: str | None, tmp_path: Path, registry: Registry) -> None:
    content = RECIPE if preset is None else {"model": RECIPE["model"], "preset": preset, "data": RECIPE["data"]}
    recipe = load_recipe(content, registry=registry)
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    again = load_recipe(path, registry=registry)
    assert again == recipe
    assert again.to_yaml() == recipe.to_yaml()
    assert load_recipe(recipe.to_dict(), registry=registry) == recipe


def test_the_resolved_recipe_holds_defaults_and_component_parameters(registry: Registry) -> None:
    resolved = load_recipe(RECIPE, registry=registry).to_dict()
    assert resolved["training"]["learning_rate"] == 2e-5
    assert resolved["quantization"]["weights"][2]["quantizer"]["placement"] == "every_nth_row"
    assert resolved["distillation"]["losses"][1]["layers"] == {"name": "fixed", "layers": ["low", -1]}


def test_activations_keep_their_scales_in_float32_and_weights_in_float16(registry: Registry) -> None:
    section = load_recipe(RECIPE, registry=registry).quantization
    assert section.activations is not None and section.kv_cache is not None
    assert section.activations.model_dump()["scale_dtype"] == "float32"
    assert section.kv_cache.model_dump()["scale_dtype"] == "float16"
    explicit = with_section(
        quantization={
            **RECIPE["quantization"],
            "activations": {"name": "int", "bits": 8, "scale_dtype": "float16"},
        }
    )
    written = load_recipe(explicit, registry=registry).quantization.activations
    assert written is not None and written.model_dump()["scale_dtype"] == "float16"


def test_the_messages_the_architecture_promises(tmp_path: Path, registry: Registry) -> None:
    path = tmp_path / "train.yaml"
    rules = [
        {"match": "lm_head", "quantizer": {"name": "int", "bits": 4}},
        {"match": "*", "quantizer": {"name": "ternery"}},
    ]
    content = with_section(
        quantization={"weights": rules}, distillation={"losses": [{"name": "eakld", "temprature": 1.0}]}
    )
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, registry=registry)
    assert caught.value.problems == [
        f"{path}: quantization.weights[1].quantizer: no quantizer named 'ternery'; did you mean 'ternary'?",
        f"{path}: distillation.losses[0]: loss 'eakld' has no 'temprature'; did you mean 'temperature'?",
    ]
    assert str(caught.value) == "\n".join(caught.value.problems)


def test_all_faults_are_reported_at_once(registry: Registry) -> None:
    content = {
        "modell": {},
        "data": {"sources": [], "sequence_length": 1.5},
        "quantization": {"weights": [{"match": 3, "quantizer": {"name": "int"}}], "kv_cache": "acme.fp4"},
        "distillation": {"losses": [{"name": "feature_mse", "layers": {"name": "lafd", "top_k": 0}}]},
        "training": {"learning_rate": "fast", "seed": None},
        "evaluation": {"metrics": ["los"]},
        "export": [{"name": "guf", "path": "out"}],
    }
    found = problems(content, registry, "training.max_steps[0]=1", "training.max_steps")
    assert set(found) >= {
        "recipe: the recipe has no 'modell'; did you mean 'model'?",
        "recipe: the recipe needs 'model'",
        "recipe: data.sources: expected at least 1 entry, found 0",
        "recipe: data.sequence_length: expected a whole number, got 1.5",
        "recipe: quantization.weights[0].match: expected a list, got 3",
        "recipe: quantization.weights[0].quantizer: quantizer 'int' needs 'bits'",
        "recipe: quantization.kv_cache: no quantizer named 'acme.fp4'; no plugin 'acme' is installed",
        "recipe: distillation.losses[0].layers.top_k: expected at least 1, got 0",
        "recipe: training.learning_rate: expected a number, got 'fast'",
        "recipe: training.seed: expected a whole number, got null",
        "recipe: evaluation.metrics[0]: expected 'loss', 'bits_per_byte', 'kl_teacher' or 'top1_agreement', got 'los'",
        "--set training.max_steps: expected key.path=value, for example training.max_steps=100",
    }
    assert any(line.startswith("recipe: export[0]: no exporter named 'guf'; ") for line in found)


ONE_FAULT: dict[str, tuple[dict[str, Any], str]] = {
    "a number or a list": (
        with_section(data={"sources": ["a"], "held_out": {}}),
        "data.held_out: expected a number or a list, got keys with values",
    ),
    "a source of held_out": (
        with_section(data={"sources": ["a"], "held_out": [{"path": "b", "ratoi": 1}]}),
        "data.held_out[0]: source has no 'ratoi'; did you mean 'ratio'?",
    ),
    "ratios": (
        with_section(data={"sources": [{"path": "a", "ratio": 0.5}, {"path": "b", "ratio": 0.4}]}),
        "data: the ratios of the sources add up to 0.9; expected 1",
    ),
    "some ratios": (
        with_section(data={"sources": [{"path": "a", "ratio": 0.5}, "b"]}),
        "data: some sources have a ratio and some have none; give it to all or to none",
    ),
    "a share": (
        with_section(data={"sources": "a", "held_out": 1.5}),
        "data: held_out is 1.5; expected a share between 0 and 1, or a list of sources",
    ),
    "a list entry of two types": (
        with_section(
            distillation={"losses": [{"name": "feature_mse", "layers": {"name": "fixed", "layers": ["lo", 1]}}]}
        ),
        "distillation.losses[0].layers.layers[0]: expected a whole number or 'low', 'mid' or 'high', got 'lo'",
    ),
    "a loss that is no mapping": (
        with_section(distillation={"losses": [3]}),
        "distillation.losses[0]: expected a loss such as {name: ...}, got 3",
    ),
    "a component without a name": (
        with_section(quantization={"weights": [{"match": "*", "quantizer": {"bits": 4}}]}),
        "quantization.weights[0].quantizer: this quantizer has no 'name'",
    ),
    "a rule without globs": (
        with_section(quantization={"weights": [{"match": [], "quantizer": None}]}),
        "quantization.weights[0].match: expected at least 1 entry, found 0",
    ),
    "evaluations without data": (
        with_section(data={"sources": "a"}, evaluation={"every_steps": 4}),
        "evaluation.every_steps: is 4, but no data is held out to evaluate on; set data.held_out, or null here",
    ),
    "a declared key in extra": (
        with_section(training={"extra": {"learning_rate": 1e-4, "adafactor": False}}),
        "training.extra.learning_rate: is a key of its own; write it under training: {learning_rate: ...}",
    ),
    "a best model of no figure": (
        with_section(training={"metric_for_best_model": "eval_kl_techer"}, evaluation={}),
        "training.metric_for_best_model: 'eval_kl_techer' is not among evaluation.metrics; did you mean 'kl_teacher'?",
    ),
    "a best model by a figure that is not measured": (
        with_section(
            training={"load_best_model_at_end": True},
            evaluation={"every_steps": 4, "metrics": ["kl_teacher"]},
        ),
        "training.metric_for_best_model: 'loss' is not among evaluation.metrics; expected one of: kl_teacher",
    ),
    "a best model without evaluations": (
        with_section(training={"load_best_model_at_end": True}),
        "training.load_best_model_at_end: needs evaluations during the run to tell which model is best; "
        "set evaluation.every_steps",
    ),
    "a section that is a list": (
        with_section(training=[]),
        "training: expected keys with values, got a list",
    ),
}


@pytest.mark.parametrize(("content", "message"), ONE_FAULT.values(), ids=ONE_FAULT.keys())
def test_one_fault_gives_one_line(content: dict[str, Any], message: str, registry: Registry) -> None:
    assert problems(content, registry) == [f"recipe: {message}"]


def test_sections_that_agree_are_accepted(registry: Registry) -> None:
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_kl_teacher"}
    recipe = load_recipe(with_section(training=best, evaluation={"every_steps": 4}), registry=registry)
    assert load_recipe(recipe.to_dict(), registry=registry) == recipe
    assert load_recipe(with_section(data=None, evaluation={"every_steps": 4}), registry=registry).data is None


def test_contradictions_are_reported_together(registry: Registry) -> None:
    content = with_section(
        data={"sources": "a"}, evaluation={"every_steps": 1}, training={"extra": {"seed": 1, "bf16": True}}
    )
    assert [line.split(": ")[1] for line in problems(content, registry)] == [
        "training.extra.seed",
        "training.extra.bf16",
        "evaluation.every_steps",
    ]


def test_a_component_sums_itself_up(registry: Registry) -> None:
    rules = load_recipe(RECIPE, registry=registry).quantization.weights
    assert rules[0].quantizer is not None and rules[0].quantizer.summary() == "int group_size=64 bits=4"
    assert rules[2].quantizer is not None and rules[2].quantizer.summary() == "sqmp group_size=64 high_ratio=1/8"


FILES = {
    "a key twice": (
        "r.yaml",
        "model: {name_or_path: a}\ntraining:\n  seed: 1\n  seed: 2\n",
        "line 4: not valid YAML: key 'seed' is written twice",
    ),
    "YAML": ("r.yaml", "model: {name_or_path: a\n", "line 2: not valid YAML: "),
    "JSON": ("r.json", '{"model": {}\n', "line 2: not valid JSON: "),
    "nested JSON": ("r.json", "[" * 100_000, "is nested too deeply to be read"),
    "nested YAML": ("r.yaml", "[" * 2_000, "is nested too deeply to be read"),
    "JSON key twice": ("r.json", '{"preset": "4-bit", "preset": "4-bit"}', "key 'preset' is written twice"),
    "no mapping": (
        "r.yaml",
        "- model\n",
        "expected sections such as model, data and quantization, found a list",
    ),
    "empty": ("r.yaml", "", "expected sections such as model, data and quantization, found null"),
    "a list as key": ("r.yaml", "? [a]\n: b\n", "line 1: not valid YAML: "),
}


@pytest.mark.parametrize(("name", "text", "message"), FILES.values(), ids=FILES.keys())
def test_a_file_that_cannot_be_parsed(name: str, text: str, message: str, tmp_path: Path, registry: Registry) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, registry=registry)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_files_that_cannot_be_read(tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(RecipeError, match=r"absent\.yaml: cannot be read: No such file or directory"):
        load_recipe(tmp_path / "absent.yaml", registry=registry)
    (tmp_path / "latin.yaml").write_bytes(b"model: {name_or_path: caf\xe9}\n")
    with pytest.raises(RecipeError, match=r"latin\.yaml: is not UTF-8 text: .* at byte 25"):
        load_recipe(tmp_path / "latin.yaml", registry=registry)


def test_a_recipe_cannot_be_changed(registry: Registry) -> None:
    recipe = load_recipe(RECIPE, registry=registry)
    with pytest.raises(ValueError, match="frozen"):
        recipe.training.max_steps = 5  # type: ignore[misc]
    assert isinstance(recipe, Recipe)
