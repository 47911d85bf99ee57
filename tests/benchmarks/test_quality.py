"""The laboratory: every contestant is a valid recipe, units are kept, differences are taken seed by seed."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from edgerazor.core.registry import Registry
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.schemas.recipe import load_recipe
from tests.plugins.quantizer_cases import build
from tests.runs import LINES, save_model


def setting(folder: Path) -> Any:
    values = {"teacher": folder, "group_size": 32, "head_size": 16, "layers": 2, "held_out": folder / "held.jsonl"}
    sources = {kind: folder / f"{kind}.jsonl" for kind in ("human", "teacher")}
    sizes = {"steps": 80, "sequence_length": 64, "batch_size": 2, "learning_rate": 1e-3}
    return import_module("quality_recipes").Setting(**values, **sizes, sources=sources)


def recipe_of(contestant: Any, shared: Any, seed: int) -> Any:
    return import_module("quality_recipes").recipe_of(contestant, shared, seed)


def test_every_contestant_is_a_recipe_that_differs_from_the_published_one(tmp_path: Path, registry: Registry) -> None:
    contestants = import_module("quality_contestants")
    slugs = {contestant.slug for contestant in contestants.CONTESTANTS}
    assert len(slugs) == len(contestants.CONTESTANTS)
    recipes = []
    for contestant in contestants.CONTESTANTS:
        raw = recipe_of(contestant, setting(tmp_path), 3)
        recipe = load_recipe(raw, registry=registry)
        assert recipe.training.max_steps == 80 * contestant.times and recipe.training.seed == 3
        if contestant.kind == "trained":
            recipes.append(recipe.to_yaml())
    assert len(set(recipes)) == len(recipes)


def test_what_the_laboratory_calls_ours_is_what_our_presets_have(tmp_path: Path, registry: Registry) -> None:
    contestants = import_module("quality_contestants")
    ours = next(entry for entry in contestants.CONTESTANTS if entry.name == f"{contestants.OURS}, 1.88 bit")
    (loss,) = [
        entry
        for entry in recipe_of(ours, setting(tmp_path), 0)["distillation"]["losses"]
        if entry["name"] == "feature_mse"
    ]
    content = {"model": {"name_or_path": "x", "family": "qwen3"}, "preset": "edgerazor-1.88-bit"}
    distillation = load_recipe(content, registry=registry).distillation
    assert distillation is not None
    preset = distillation.losses[1].model_dump()
    assert (preset["name"], preset["relative"], preset["weight"]) == ("feature_mse", loss["relative"], loss["weight"])


@pytest.mark.parametrize("bits", [1.58, 1.88, 2.79, 4])
def test_what_the_laboratory_calls_closer_states_with_signed_scales_has_the_quantizers_of_our_presets(
    bits: float, tmp_path: Path, registry: Registry
) -> None:
    contestants = import_module("quality_contestants")
    ours = next(
        entry for entry in contestants.CONTESTANTS if entry.name == f"{contestants.OURS}, signed scales, {bits:g} bit"
    )
    content = {"model": {"name_or_path": "x", "family": "qwen3"}, "preset": f"edgerazor-{bits:g}-bit"}
    found, expected = (
        [rule.model_dump()["quantizer"] for rule in load_recipe(raw, registry=registry).quantization.weights]
        for raw in (recipe_of(ours, setting(tmp_path), 0), content)
    )
    same = {"scale_dtype": "", "group_size": 0}  # the preset's are chosen for engines and for the model
    assert [values | same for values in found] == [values | same for values in expected]


@pytest.mark.parametrize("bits", [1.58, 1.88, 2.79, 4])
def test_what_the_laboratory_calls_a_calibrated_start_begins_as_our_presets_do(
    bits: float, tmp_path: Path, registry: Registry
) -> None:
    contestants = import_module("quality_contestants")
    allocated = ", allocated" if bits in contestants.MIXED else ""
    name = f"{contestants.OURS}, calibrated start, signed scales{allocated}, {bits:g} bit"
    ours = next(entry for entry in contestants.CONTESTANTS if entry.name == name)
    content = {"model": {"name_or_path": "x", "family": "qwen3"}, "preset": f"edgerazor-{bits:g}-bit"}
    raw = recipe_of(ours, setting(tmp_path), 0)
    found, expected = (load_recipe(entry, registry=registry).training for entry in (raw, content))
    assert found.allocation == expected.allocation
    assert (found.allocation is not None) is (bits in contestants.MIXED)
    assert (found.start, found.start_samples) == (expected.start, expected.start_samples) == ("calibrated", None)


@pytest.mark.parametrize(
    ("name", "preset", "same"),
    [
        ("published, mixed, 4 bit", "4-bit-mixed", {}),
        (
            "closer states, calibrated start, signed scales, k and v of 4 bits, 1.88 bit",
            "edgerazor-1.88-bit-tensor",
            {"scale_dtype": "", "group_size": 0},  # the preset's are chosen for engines and for the model
        ),
    ],
)
def test_what_has_other_widths_by_name_is_the_preset(
    name: str, preset: str, same: dict[str, Any], tmp_path: Path, registry: Registry
) -> None:
    def quantizers(content: dict[str, Any]) -> dict[str, Any]:
        section = load_recipe(content, registry=registry).quantization
        found = {pattern: rule.model_dump()["quantizer"] | same for rule in section.weights for pattern in rule.match}
        return found | {"activations": section.model_dump()["activations"] | same}

    contestants = import_module("quality_contestants")
    ours = next(entry for entry in contestants.CONTESTANTS if entry.name == name)
    content = {"model": {"name_or_path": "x", "family": "qwen3"}, "preset": preset}
    found, expected = (quantizers(raw) for raw in (recipe_of(ours, setting(tmp_path), 0), content))
    assert found == expected


@pytest.mark.parametrize(("name", "options"), [("int", {"bits": 3}), ("ternary", {}), ("sqmp", {"high_ratio": 0.5})])
def test_textbook_gptq_is_rounding_where_inputs_are_independent_and_closer_elsewhere(
    name: str, options: dict[str, Any]
) -> None:
    gptq_codes = import_module("textbook_gptq").gptq_codes
    quantizer = build(name, group_size=32, **options)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(12, 96, generator=generator)
    inputs = torch.randn(400, 96, generator=generator) @ torch.randn(96, 96, generator=generator)
    moments, plain = (inputs.T @ inputs).double(), quantizer.quantize(weight)
    alone = gptq_codes(weight, torch.eye(96, dtype=torch.float64), quantizer)
    assert torch.equal(alone.codes, plain.codes) and torch.equal(alone.scale, plain.scale)

    def error(found: QuantizedTensor) -> float:
        change = (found.dequantize(torch.float32) - weight).double()
        return float(((change @ moments) * change).sum())

    assert error(gptq_codes(weight, moments, quantizer)) < 0.7 * error(plain)


def test_differences_are_taken_between_equal_seeds() -> None:
    def unit(method: str, seed: int, kl: float) -> dict[str, Any]:
        facts = {"name": method, "method": method, "bits": 1.88, "kind": "trained", "data": "human", "seed": seed}
        return {**facts, "loss": 2 + kl, "kl_teacher": kl, "top1_agreement": 0.5, "bytes": 10, "seconds": 1.0}

    teacher = unit("teacher", 0, 0.0) | {"bits": 16}
    published = [unit("published", seed, 1.0 + seed) for seed in range(3)]
    better = [unit("better", seed, 0.9 + seed) for seed in range(2)]
    rows = {row["name"]: row for row in import_module("quality_report").summarise([teacher, *published, *better])}
    assert rows["better"]["difference"] == pytest.approx(-0.1)
    assert rows["better"]["difference_error"] == pytest.approx(0, abs=1e-9)
    assert rows["published"]["kl_teacher_error"] == pytest.approx(1 / 3**0.5)
    assert rows["better"]["gap"] == pytest.approx(1.4) and "difference" not in rows["published"]
    assert import_module("quality_report").table(list(rows.values())).count("\n") == 5


@pytest.mark.slow
def test_units_are_kept_and_a_changed_one_is_made_anew(tmp_path: Path) -> None:
    model, text = save_model(tmp_path / "model"), tmp_path / "text"
    text.mkdir()
    for index in range(12):
        (text / f"{index}.txt").write_text("\n".join(LINES[index * 13 : index * 13 + 13]), encoding="utf-8")
    main = import_module("quality").main
    options = ["--output", str(tmp_path / "out"), "--teacher", str(model), "--data", str(text), "--batches", "1"]
    options += ["--length", "32", "--only", "rounding, 4", "published, teacher text"]
    main([*options, "--steps", "1", "--seeds", "0"])
    folder = tmp_path / "out" / "units"
    first = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    trained = "published--teacher-text--1.88-bit-seed0.json"
    assert first.keys() == {trained, "rounding--4-bit-seed0.json", "calibrated-rounding--4-bit-seed0.json"}
    (folder / "rounding--4-bit-seed0.json").unlink()
    main([*options, "--steps", "1", "--seeds", "0", "--learning-rate", "0.002"])
    again = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert [name for name in sorted(first) if first[name] == again[name]] == ["calibrated-rounding--4-bit-seed0.json"]
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert len(results["rows"]) == len(results["units"]) == 4
    assert (tmp_path / "out" / "quality.svg").read_text(encoding="utf-8").lstrip().startswith("<?xml")


@pytest.mark.slow
def test_a_middle_teacher_goes_on_where_it_was_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(LINES * 30), encoding="utf-8")
    options = ["--output", str(tmp_path / "out"), "--data", str(text), "--layers", "1", "--width", "64"]
    options += ["--batch-size", "1", "--save-steps", "1", "--vocabulary", "300"]
    main = import_module("middle_teacher").main
    for steps in (1, 2):
        main([*options, "--steps", str(steps)])
    log = (tmp_path / "out" / "checkpoints" / "checkpoint-2" / "trainer_state.json").read_text(encoding="utf-8")
    assert [entry["step"] for entry in json.loads(log)["log_history"] if "loss" in entry] == [1, 2]
    assert (tmp_path / "out" / "teacher" / "model.safetensors").exists()
