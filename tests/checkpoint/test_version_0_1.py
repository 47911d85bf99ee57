"""What version 0.1 wrote: checkpoints that load, verify, write text and are packed again; recipes that load."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import nn
from transformers import AutoTokenizer

from edgerazor.checkpoint import load_model, open_checkpoint, pack_model, verify_checkpoint
from edgerazor.core.registry import Registry
from edgerazor.errors import RecipeError
from edgerazor.inference.generate import GenerationSettings, generate
from edgerazor.schemas.recipe import load_recipe
from edgerazor.training.output import prepare_output

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[1] / "fixtures" / "version_0_1"
CHECKPOINTS = sorted(path.parent.name for path in FOLDER.glob("*/expected.json"))


def expected(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / name / "expected.json").read_text())


def hash_values(model: nn.Module) -> str:
    """sha256 of the float32 values of all tensors of a model, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.float().contiguous().numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints_are_sound_and_dequantize_to_the_same_values(name: str) -> None:
    result = verify_checkpoint(FOLDER / name / "packed", logits=True)
    assert result.faults == () and result.digest == expected(name)["digest"]
    assert hash_values(load_model(FOLDER / name / "packed", dequantize=True)) == expected(name)["dequantized"]


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints_write_text(name: str, registry: Registry) -> None:
    settings, pieces = GenerationSettings(max_new_tokens=6), list[str]()
    text = generate(FOLDER / name / "packed", "the fox", settings, on_text=pieces.append, registry=registry)
    assert text and "".join(pieces) == text


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_packed_again_they_get_the_digest_of_then(name: str, registry: Registry, tmp_path: Path) -> None:
    packed, model = FOLDER / name / "packed", tmp_path / "float"
    load_model(packed, dtype="float32", dequantize=True).save_pretrained(model)
    AutoTokenizer.from_pretrained(packed).save_pretrained(model)
    content = {**open_checkpoint(packed).recipe, "model": {"name_or_path": str(model)}}
    pack_model(load_recipe(content, registry=registry), registry=registry, output=tmp_path / "packed")
    assert open_checkpoint(tmp_path / "packed").digest == expected(name)["repacked"]


def test_a_recipe_says_what_it_said(registry: Registry) -> None:
    resolved = yaml.safe_load((FOLDER / "run" / "recipe.yaml").read_text())
    for path in (FOLDER / "recipe.yaml", FOLDER / "run" / "recipe.yaml"):
        found = load_recipe(path, registry=registry).to_dict()
        resolved.pop("written_by", None)
        assert not list(differences(resolved, found)), path


def test_a_run_goes_on_by_the_recipe_that_started_it(registry: Registry, tmp_path: Path) -> None:
    shutil.copytree(FOLDER / "run", tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / "checkpoint-1"
    last.mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"):
        (last / name).write_text("{}")
    recipe = load_recipe(FOLDER / "recipe.yaml", registry=registry)
    assert prepare_output(tmp_path / "run", recipe, resume=True, registry=registry) == str(last)
    other = load_recipe(FOLDER / "recipe.yaml", registry=registry, overrides=["data.sequence_length=32"])
    with pytest.raises(RecipeError, match=r"data\.sequence_length: is 32, but was 64"):
        prepare_output(tmp_path / "run", other, resume=True, registry=registry)


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """Key paths of `old` that have another value in `new`; keys that `new` has besides are no difference."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [path for key in old for path in differences(old[key], new.get(key), f"{where}.{key}")]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        entries = enumerate(zip(old, new, strict=True))
        return [path for index, pair in entries for path in differences(*pair, f"{where}[{index}]")]
    return [] if old == new else [f"{where}: {old!r} -> {new!r}"]
