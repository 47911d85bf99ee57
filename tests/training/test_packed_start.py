"""`training.start: FOLDER`: a student that begins at a packed checkpoint, whatever made that."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from edgerazor import load_model, load_recipe, train
from edgerazor.calibrate import pack_calibrated
from edgerazor.checkpoint import open_checkpoint, pack_model
from edgerazor.core.registry import Registry
from edgerazor.errors import CheckpointError, EdgeRazorError, PlanError, RecipeError
from edgerazor.models.load import Models, load_student
from edgerazor.recipes.check import check_recipe
from edgerazor.schemas.recipe import Recipe
from edgerazor.training.start import open_start, start_packed
from tests.runs import SIZES, recipe, save_model

STILL = {"max_steps": 1, "learning_rate": 1e-30}


def written(raw: dict[str, Any], registry: Registry, output: Path) -> tuple[Recipe, Path]:
    loaded = load_recipe(raw, registry=registry)
    pack_model(loaded, registry=registry, output=output)
    return loaded, output


def logits(folder: Path, registry: Registry) -> torch.Tensor:
    model: Any = load_model(folder, dtype=torch.float32, registry=registry)
    with torch.no_grad():
        return model(input_ids=torch.arange(20)[None]).logits


@pytest.mark.parametrize("how", ["rounded", "calibrated"])
def test_a_run_begins_at_a_checkpoint_and_packs_it_again(how: str, tmp_path: Path, registry: Registry) -> None:
    raw = recipe(tmp_path)
    loaded = load_recipe(raw, registry=registry)
    if how == "rounded":
        pack_model(loaded, registry=registry, output=tmp_path / "first")
    else:
        assert loaded.data is not None
        pack_calibrated(loaded, registry=registry, output=tmp_path / "first", data=loaded.data, samples=3)
    raw["training"] |= {**STILL, "start": str(tmp_path / "first")}
    result = train(load_recipe(raw, registry=registry), registry=registry, output=tmp_path / "run")
    assert result.checkpoint is not None
    assert open_checkpoint(result.checkpoint).digest == open_checkpoint(tmp_path / "first").digest
    assert torch.equal(logits(result.checkpoint, registry), logits(tmp_path / "first", registry))


def test_what_is_not_quantized_comes_from_the_checkpoint(tmp_path: Path, registry: Registry) -> None:
    loaded, folder = written(recipe(tmp_path), registry, tmp_path / "first")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    student, plan = load_student(Models(loaded.model, registry), loaded)
    start_packed(student, plan, open_checkpoint(folder, registry=registry))
    assert torch.equal(student.get_parameter("model.norm.weight"), tensors["model.norm.weight"].float())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unquantized": ["*.down_proj"]}, "down_proj is quantized there and at 16 bit by the recipe"),
        ({"group_size": 16}, "in groups of 32, expected .* in groups of 16"),
        ({"bits": 3}, "has codes of 4 bits, expected 3"),
        ({"scale_dtype": "float16_bfloat16"}, "embed_tokens: 'int' rounds no weights to these codes and scales"),
    ],
)
def test_another_plan_is_refused(changes: dict[str, Any], message: str, tmp_path: Path, registry: Registry) -> None:
    body = {"name": "int", "bits": 4, "group_size": SIZES["weights"]}
    raw = recipe(tmp_path)
    raw["quantization"]["weights"] = [{"match": "*", "quantizer": body}]
    _, folder = written(raw, registry, tmp_path / "first")
    if "unquantized" in changes:
        raw["quantization"]["weights"].insert(0, {"match": changes["unquantized"], "quantizer": None})
    else:
        raw["quantization"]["weights"] = [{"match": "*", "quantizer": {**body, **changes}}]
    loaded = load_recipe(raw, registry=registry)
    student, plan = load_student(Models(loaded.model, registry), loaded)
    with pytest.raises(EdgeRazorError, match=message) as error:
        start_packed(student, plan, open_checkpoint(folder, registry=registry))
    assert isinstance(error.value, CheckpointError | PlanError) and str(folder) in str(error.value)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("calibratd", "training.start: there is no folder calibratd; did you mean 'calibrated'\\?"),
        ("runs/first", "no folder runs/first; expected model, calibrated, or the folder of a packed checkpoint"),
    ],
)
def test_a_start_that_is_not_there_is_named(start: str, message: str, tmp_path: Path, registry: Registry) -> None:
    source = tmp_path / "recipe.yaml"
    source.write_text(yaml.safe_dump({**recipe(tmp_path), "training": {"start": start}}), encoding="utf-8")
    with pytest.raises(RecipeError, match=message):
        check_recipe(source, registry=registry)
    with pytest.raises(CheckpointError, match=message):
        open_start(start, registry)


def test_a_damaged_start_is_refused(tmp_path: Path, registry: Registry) -> None:
    _, folder = written(recipe(tmp_path), registry, tmp_path / "first")
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"training\.start: .*model\.safetensors"):
        open_start(str(folder), registry)


def test_a_start_that_is_no_checkpoint_is_refused(tmp_path: Path, registry: Registry) -> None:
    model = save_model(tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"training\.start: .*config\.json"):
        open_start(str(model), registry)
