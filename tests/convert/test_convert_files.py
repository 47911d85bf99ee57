"""Whole files: the forms the original reads, everything that is refused at once, and the command."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgerazor.convert import convert_recipe
from edgerazor.convert.quantizers import STATE_FUNCTIONS, WEIGHT_FUNCTIONS
from edgerazor.core.registry import Registry
from edgerazor.errors import RecipeError
from edgerazor.schemas.recipe import load_recipe
from tests.commands import fail, invoke, succeed
from tests.convert.originals import INT4, changed, published

CHANNEL = "weight_quant_uniform_symmetric_clip_per_channel_int1_58"
FUNCTION = "qat_configuration.function"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old.yaml"
    path.write_text(yaml.safe_dump(published("qwen3-0.6b", "1.88"), sort_keys=False))
    return path


def problems(registry: Registry, content: dict[str, Any]) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        convert_recipe(content, registry=registry)
    return caught.value.problems


def test_the_command_writes_a_recipe(registry: Registry, old: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.yaml"
    said = succeed("convert-recipe", old, "--output", new, "--model", "Qwen/Qwen3-0.6B")
    assert said.startswith(f"wrote {new}\n  note: data, training: ")
    recipe = load_recipe(new, registry=registry)
    assert recipe.model.name_or_path == "Qwen/Qwen3-0.6B" and recipe.data is None
    assert "  - {match: '*', quantizer: {name: sqmp, high_ratio: 0.125, group_size: 256}}\n" in new.read_text()


def test_the_terminal_gets_the_recipe_and_nothing_else(old: Path) -> None:
    result = invoke("convert-recipe", old)
    assert result.exit_code == 0 and "note: model.name_or_path: " in result.stderr
    assert set(yaml.safe_load(result.stdout)) == {"model", "quantization", "distillation"}


def test_a_file_that_is_there_stays(old: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.yaml"
    new.write_text("mine")
    assert "is there already" in fail("convert-recipe", old, "--output", new) and new.read_text() == "mine"
    succeed("convert-recipe", old, "--output", new, "--force")
    assert new.read_text() != "mine"
    assert fail("convert-recipe", old, "--output", tmp_path / "absent" / "new.yaml")


def test_everything_that_is_wrong_is_said_at_once(old: Path) -> None:
    content = published("qwen3-0.6b", "1.88")
    function = content["qat_configuration"]["function"]
    function |= {"w_mixed_precision_prop": 0.3, "kv_cache_function": "int8", "w_blocksize": 64}
    content["qat_configuration"]["select"]["target_types"].append("conv2d")
    content["kd_configuration"]["loss_2"]["reduction"] = "none"
    content["kd_configuration"]["loss_1"]["temprature"] = 1
    content["qat_config"] = {}
    old.write_text(yaml.safe_dump(content, sort_keys=False))
    lines = fail("convert-recipe", old).splitlines()
    paths = [line.removeprefix(f"{old}: ").partition(": ")[0] for line in lines]
    assert paths == [
        "qat_config",
        f"{FUNCTION}.w_blocksize",
        "qat_configuration.select.target_types[3]",
        f"{FUNCTION}.w_mixed_precision_prop",
        f"{FUNCTION}.kv_cache_function",
        "kd_configuration.loss_1.temprature",
        "kd_configuration.loss_2.reduction",
    ]
    assert "did you mean 'qat_configuration'?" in lines[0] and "did you mean 'w_block_size'?" in lines[1]
    assert "nearest usable ratios are '1/3' and '1/4'" in lines[3]


def test_files_that_are_something_else(old: Path) -> None:
    old.write_text("model: {name_or_path: x}\npreset: 4-bit\n")
    assert fail("convert-recipe", old) == f"{old}: is a recipe already; `edgerazor check` reads it\n"
    old.write_text("a: 1\n")
    assert "expected a section qat_configuration" in fail("convert-recipe", old)
    old.write_text("- 1\n")
    assert "expected a section qat_configuration and perhaps kd_configuration, found a list" in fail(
        "convert-recipe", old
    )
    old.write_text("qat_configuration:\n  training: all\n  training: all\n")
    assert "line 3: not valid YAML: key 'training' is written twice" in fail("convert-recipe", old)
    assert "cannot be read" in fail("convert-recipe", old.parent / "absent.yaml")


def test_every_form_that_the_original_reads(registry: Registry, tmp_path: Path) -> None:
    content = published("qwen3-0.6b", "2.79")
    both = convert_recipe(content, registry=registry).recipe
    path = tmp_path / "old.json"
    path.write_text(json.dumps(content))
    assert yaml.safe_load(invoke("convert-recipe", path).stdout) == both
    wrapped = convert_recipe({"qat_configuration": content["qat_configuration"]}, registry=registry).recipe
    bare = convert_recipe(content["qat_configuration"], registry=registry).recipe
    assert wrapped == bare == {key: both[key] for key in ("model", "quantization")}
    for part in ({"kd_configuration": content["kd_configuration"]}, content["kd_configuration"]):
        assert problems(registry, part)[0].startswith(
            "qat_configuration: is absent, and a recipe says what is quantized"
        )


def test_what_is_written_is_what_was_meant(registry: Registry) -> None:
    for model, bits in (("qwen3-0.6b", "1.58"), ("qwen2.5-omni-7b", "4")):
        converted = convert_recipe(published(model, bits), registry=registry)
        before = copy.deepcopy(converted.recipe)
        assert yaml.safe_load(converted.to_yaml()) == converted.recipe == before


def test_numbers_may_be_text(registry: Registry) -> None:
    """YAML takes 1e-5 for text, and the original's own files have it."""
    content = changed(f"{FUNCTION}.epsilon", "1e-5")
    content["qat_configuration"]["function"]["w_block_size"] = "128"
    converted = convert_recipe(content, registry=registry)
    assert converted.recipe["quantization"]["weights"][1]["quantizer"]["group_size"] == 128
    assert not any("epsilon" in note for note in converted.notes)


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("weight_function", "int4", f"{FUNCTION}.weight_function: no function of the original is named 'int4'"),
        ("weight_function", next(iter(STATE_FUNCTIONS)), f"{FUNCTION}.weight_function: '"),
        ("weight_function", CHANNEL, f"{FUNCTION}.w_mixed_precision_prop: '{CHANNEL}' mixes no widths"),
        ("w_block_size", 12.5, f"{FUNCTION}.w_block_size: expected a whole number, got 12.5"),
        ("w_block_size", "many", f"{FUNCTION}.w_block_size: expected a number, got 'many'"),
        ("w_mixed_precision_prop", 1.5, f"{FUNCTION}.w_mixed_precision_prop: 1.5 is not between 0 and 1"),
        ("is_w_quantized", True, f"{FUNCTION}.is_w_quantized: weights that are quantized already"),
        ("activation_function", INT4, f"{FUNCTION}.activation_function: '{INT4}' quantizes weights"),
        ("a_mixed_precision_prop", 0.1, f"{FUNCTION}.a_mixed_precision_prop: mixed widths of activations"),
        ("kv_mixed_precision_prop", 0.1, f"{FUNCTION}.kv_mixed_precision_prop: mixed widths of activations"),
    ],
)
def test_functions_that_have_no_counterpart(registry: Registry, key: str, value: Any, line: str) -> None:
    found = problems(registry, changed(f"{FUNCTION}.{key}", value))
    assert any(problem.startswith(line) for problem in found), found


def test_one_scale_per_row_takes_no_size(registry: Registry) -> None:
    content = changed(f"{FUNCTION}.weight_function", CHANNEL)
    content["qat_configuration"]["function"]["w_mixed_precision_prop"] = -1
    assert problems(registry, content)[0].startswith(f"{FUNCTION}.w_block_size: is 256, but the function has one scale")


@pytest.mark.parametrize(
    ("key", "value", "note"),
    [
        ("epsilon", 1e-3, "epsilon: is 0.001; the floor of a scale is 1e-05 here"),
        ("w_block_size", -1, "w_block_size: is not given; 256, the original's default"),
        ("w_mixed_precision_prop", -1, "w_mixed_precision_prop: is not given; 0.01, the original's default"),
        ("w_mixed_precision_prop", 0, "w_mixed_precision_prop: 0 is all ternary here"),
    ],
)
def test_what_changes_without_harm_is_a_note(registry: Registry, key: str, value: Any, note: str) -> None:
    notes = convert_recipe(changed(f"{FUNCTION}.{key}", value), registry=registry).notes
    assert any(said.startswith(f"{FUNCTION}.{note}") for said in notes), notes


def test_a_factor_that_has_nothing_to_act_on(registry: Registry) -> None:
    content = published("qwen3-0.6b", "4")
    content["qat_configuration"]["function"]["w_scale_factor"] = 2.0
    converted = convert_recipe(content, registry=registry)
    assert any(note.startswith(f"{FUNCTION}.w_scale_factor: acts on the mean") for note in converted.notes)
    assert converted.recipe["quantization"]["weights"][0]["quantizer"] == {"name": "int", "bits": 4, "group_size": 256}


def test_the_negative_side_is_covered(registry: Registry) -> None:
    content = published("qwen3-0.6b", "4")
    content["qat_configuration"]["function"]["weight_function"] = "weight_quant_uniform_asymmetric_max_per_block_int4"
    converted = convert_recipe(content, registry=registry)
    assert converted.recipe["quantization"]["weights"][0]["quantizer"]["symmetric"] is False
    assert any(
        "weight_function: the original takes the scale from the largest positive" in said for said in converted.notes
    )


def test_what_is_trained(registry: Registry) -> None:
    assert "training" not in convert_recipe(changed("qat_configuration.training", "all"), registry=registry).recipe
    converted = convert_recipe(changed("qat_configuration.training", "quantized"), registry=registry)
    assert converted.recipe["training"] == {"train_parameters": "quantized"}
    assert any(note.startswith("qat_configuration.training: the original trains all") for note in converted.notes)
    found = problems(registry, changed("qat_configuration.training", "head"))
    assert found == ["qat_configuration.training: expected all, or quantized for a recipe, got 'head'"]


@pytest.mark.parametrize("path", ["log_level", "qat_configuration.log_level", "kd_configuration.log_level"])
def test_logging_is_left_out(registry: Registry, path: str) -> None:
    notes = convert_recipe(changed(path, "DEBUG"), registry=registry).notes
    assert f"{path}: left out: a recipe says nothing about logging" in notes


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("qat_configuration.function", [], "qat_configuration.function: expected keys with values, got a list"),
        ("qat_configuration.overrides", {}, "qat_configuration.overrides: expected a list, got keys with values"),
        ("qat_configuration.overrides", [{"nam": 1}], "qat_configuration.overrides[0].nam: is no key"),
        ("qat_configuration.overrides", [{"name": "("}], "qat_configuration.overrides[0].name: '(' is no regular"),
        ("qat_configuration.overrides", [{"name": 3}], "qat_configuration.overrides[0].name: expected a name, got 3"),
        ("qat_configuration.select.exclude_names", "x", "qat_configuration.select.exclude_names: expected a list"),
        ("qat_configuration.select.exclude_names", [3], "qat_configuration.select.exclude_names[0]: expected a name"),
        ("qat_configuration.select.names", [], "qat_configuration.select.names: is no key of the original"),
        ("qat_configuration.function.weight_function", [], "qat_configuration.function.weight_function: no function"),
        ("qat_configuration.method", "KD", "qat_configuration.method: expected QAT, got 'KD'"),
    ],
)
def test_malformed_sections(registry: Registry, path: str, value: Any, line: str) -> None:
    found = problems(registry, changed(path, value))
    assert any(problem.startswith(line) for problem in found), found


def places(content: Any, path: str = "") -> list[str]:
    """Key path of every value."""
    if not isinstance(content, dict):
        return [path]
    inner = [place for key, value in content.items() for place in places(value, f"{path}.{key}" if path else key)]
    return [*inner, *([path] if path else [])]


@pytest.mark.slow
@pytest.mark.parametrize("path", places(published("qwen3-0.6b", "1.88")))
@pytest.mark.parametrize("value", [None, [], {}, "x", 3, -1, True, 0.5, ["a", None], {"a": 1}], ids=str)
def test_whatever_a_value_is_the_answer_is_a_recipe_or_a_list_of_problems(
    registry: Registry, path: str, value: Any
) -> None:
    try:
        converted = convert_recipe(changed(path, value), registry=registry)
    except RecipeError as error:
        assert error.problems and all(": " in line for line in error.problems)
    else:
        load_recipe(converted.recipe, registry=registry)


def test_every_function_of_the_original_is_known() -> None:
    """Release 1.3.5 has 19 functions for weights and 7 for activations, keys and values."""
    assert (len(WEIGHT_FUNCTIONS), len(STATE_FUNCTIONS)) == (19, 7)
