"""A run by a preset alone: recipe and checkpoint hold the group sizes that fit; it resumes and packs by them."""

from pathlib import Path

import pytest
import yaml

from edgerazor.checkpoint import load_model
from edgerazor.checkpoint.pack_source import pack_source
from edgerazor.core.registry import Registry
from edgerazor.schemas.recipe import load_recipe
from edgerazor.training import train
from tests.runs import preset_recipe, save_data, save_model


@pytest.mark.slow
def test_a_run_needs_a_model_and_a_width(registry: Registry, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", num_hidden_layers=3)
    content = preset_recipe(model, save_data(tmp_path / "data.jsonl"), preset="2.79-bit")
    recipe, output = load_recipe(content, registry=registry), tmp_path / "run"
    assert recipe.quantization.fit
    assert train(recipe, registry=registry, output=output).checkpoint is not None
    stored = yaml.safe_load((output / "recipe.yaml").read_text(encoding="utf-8"))
    assert "fit" not in stored["quantization"]
    sizes = [rule["quantizer"]["group_size"] for rule in stored["quantization"]["weights"]]
    assert (sizes, stored["quantization"]["kv_cache"]["group_size"]) == ([64, 32], 16)
    packed = load_model(output / "packed").config.quantization_config.to_dict()
    assert packed["recipe"]["quantization"] == stored["quantization"]
    last = output / "checkpoints" / "checkpoint-2"
    assert pack_source(str(last), registry=registry, output=tmp_path / "again", preset="2.79-bit").folder.is_dir()
    again = load_recipe(content, registry=registry, overrides=["training.max_steps=3"])
    assert train(again, registry=registry, output=output, resume=True).steps == 3
