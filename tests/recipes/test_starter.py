"""The recipe that `edgerazor init` writes: what its comments say holds."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgerazor.core.registry import Registry
from edgerazor.recipes.starter import PRESET, write_starter
from edgerazor.schemas.recipe import load_recipe

QWEN = {"name_or_path": "x", "family": "qwen3"}


def written(path: Path, **options: Any) -> str:
    write_starter(path, **options)
    return path.read_text(encoding="utf-8")


def test_sections_in_comments_are_what_its_preset_stands_for(tmp_path: Path, registry: Registry) -> None:
    text = written(tmp_path / "recipe.yaml")
    commented = [block for block in text.split("\n\n") if block.startswith(("# What edgerazor-", "# distillation:"))]
    spaced = re.sub("(?m)^# ", "", re.sub("(?m)^# (What|start) .*\n", "", "\n".join(commented)))
    sections = yaml.safe_load(spaced)
    filled, spelled = (
        load_recipe({"model": QWEN, **content}, registry=registry) for content in ({"preset": PRESET}, sections)
    )
    assert spelled.distillation == filled.distillation
    rules, expected = (
        [(rule.match, rule.quantizer) for rule in recipe.quantization.weights] for recipe in (spelled, filled)
    )
    assert rules == expected
    assert spelled.quantization.activations == filled.quantization.activations
    assert spelled.quantization.kv_cache == filled.quantization.kv_cache


def test_values_in_comments_turn_off_what_the_preset_adds(tmp_path: Path, registry: Registry) -> None:
    text = written(tmp_path / "recipe.yaml")
    plain, without = yaml.safe_load(text), yaml.safe_load(re.sub("(?m)^  # (start|allocation):", r"  \1:", text))
    found = [load_recipe(raw | {"model": QWEN}, registry=registry).training for raw in (plain, without)]
    assert [entry.start for entry in found] == ["calibrated", "model"]
    assert [entry.allocation is not None for entry in found] == [True, False]


@pytest.mark.parametrize("preset", [None, "4-bit"])
def test_pictures_get_the_published_preset_unless_another_is_named(tmp_path: Path, preset: str | None) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["ViTForImageClassification"]}', encoding="utf-8")
    text = written(tmp_path / "recipe.yaml", model=str(tmp_path), preset=preset)
    raw = yaml.safe_load(text)
    assert raw["preset"] == (preset or "1.88-bit") and raw["data"]["task"] == "image_classification"
    assert (
        "allocation" not in text
        and raw["training"].keys() == yaml.safe_load(written(tmp_path / "texts.yaml"))["training"].keys()
    )
