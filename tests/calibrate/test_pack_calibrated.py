"""`pack --calibrate`: closer to the 16-bit model than rounding, and a packed checkpoint like any other."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from edgerazor.calibrate import pack_calibrated
from edgerazor.checkpoint import load_model, pack_model
from edgerazor.core.registry import Registry
from edgerazor.schemas.data import DataSection
from edgerazor.schemas.recipe import Recipe, load_recipe
from tests.commands import fail, succeed
from tests.families import family_model
from tests.runs import LINES, save_data, save_model, tokenizer

pytestmark = pytest.mark.slow
BODIES: list[dict[str, Any]] = [{"name": "int", "bits": 3}, {"name": "sqmp", "high_ratio": 0.25}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model` and `data.jsonl`."""
    folder = tmp_path_factory.mktemp("calibrate")
    save_model(folder / "model")
    save_data(folder / "data.jsonl")
    return folder


def recipe_of(model: Path, body: dict[str, Any], registry: Registry) -> Recipe:
    int8 = {"name": "int", "bits": 8, "group_size": 16}
    rules = [{"match": "*.layers.*", "quantizer": {**body, "group_size": 32}}]
    section = {"weights": rules, "activations": int8, "kv_cache": int8}
    return load_recipe({"model": {"name_or_path": str(model)}, "quantization": section}, registry=registry)


def texts(path: Path, length: int = 32) -> DataSection:
    return DataSection.model_validate({"sources": [{"path": str(path)}], "sequence_length": length})


@torch.no_grad()
def distance(packed: Path, model: Path) -> float:
    """Mean squared difference of logits on texts that are not calibrated on."""
    ids = torch.tensor([tokenizer()(" ".join(reversed(LINES)))["input_ids"][:100]])
    reference: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    return float((load_model(packed, dtype=torch.float32)(ids).logits - reference(ids).logits).square().mean())


@pytest.mark.parametrize("body", BODIES)
def test_it_is_closer_than_rounding(body: dict[str, Any], folder: Path, registry: Registry, tmp_path: Path) -> None:
    recipe = recipe_of(folder / "model", body, registry)
    pack_model(recipe, registry=registry, output=tmp_path / "rounded")
    data = texts(folder / "data.jsonl")
    first = pack_calibrated(recipe, registry=registry, output=tmp_path / "calibrated", data=data, samples=12)
    again = pack_calibrated(recipe, registry=registry, output=tmp_path / "again", data=data, samples=12)
    assert first.digest == again.digest
    assert distance(tmp_path / "calibrated", folder / "model") < distance(tmp_path / "rounded", folder / "model")


@pytest.mark.parametrize("name", ["gemma3", "smollm3", "phi4-mini"])
def test_layers_get_the_arguments_that_are_theirs(name: str, registry: Registry, tmp_path: Path) -> None:
    """Masks and rotations that differ from layer to layer; fused matrices."""
    model = family_model(name, vocab_size=len(tokenizer()))
    model.to(torch.bfloat16).save_pretrained(tmp_path / "model")
    tokenizer().save_pretrained(tmp_path / "model")
    save_data(tmp_path / "data.jsonl")
    recipe = recipe_of(tmp_path / "model", BODIES[0], registry)
    pack_model(recipe, registry=registry, output=tmp_path / "rounded")
    data = texts(tmp_path / "data.jsonl")
    pack_calibrated(recipe, registry=registry, output=tmp_path / "calibrated", data=data, samples=12)
    assert distance(tmp_path / "calibrated", tmp_path / "model") < distance(tmp_path / "rounded", tmp_path / "model")


def test_the_command(folder: Path, tmp_path: Path) -> None:
    pack = ("pack", folder / "model", "--preset", "4-bit", "--output", tmp_path / "packed")
    succeed(*pack, "--calibrate", folder / "data.jsonl", "--samples", 4)
    succeed("verify", tmp_path / "packed")
    assert str(folder / "absent.jsonl") in fail(*pack, "--calibrate", folder / "absent.jsonl")
    nothing = (
        "--set",
        "quantization.weights=[{match: ['*.embed_tokens', lm_head], quantizer: {name: int, bits: 4, group_size: 32}}]",
    )
    assert "there is nothing to calibrate" in fail(*pack, "--calibrate", folder / "data.jsonl", *nothing)
