"""What is not quantized keeps the 16-bit dtype of the base model, from training to every export."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import edgerazor.hf  # noqa: F401 - registers the packed format
from edgerazor.checkpoint import load_model, open_checkpoint, pack_model, verify_checkpoint
from edgerazor.core.registry import Registry
from edgerazor.schemas.recipe import Recipe, load_recipe
from edgerazor.training import train
from tests.runs import recipe, save_data, save_model

pytestmark = pytest.mark.slow

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
# 1 + 2^-10 is a float16 that bfloat16 does not hold, 2^-30 a bfloat16 that float16 does not.
TELLING = {"float16": 1 + 2**-10, "bfloat16": 2.0**-30, "float32": 1 + 2**-20}


def base(folder: Path, name: str) -> Path:
    """A model folder of that dtype, whose norms no other dtype holds."""
    save_model(folder, num_hidden_layers=1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("norm.weight"):
                parameter[0] = TELLING[name]
    model.to(DTYPES[name]).save_pretrained(folder)
    return folder


def recipe_of(folder: Path, registry: Registry, **sections: Any) -> Recipe:
    save_data(folder.parent / "data.jsonl")
    return load_recipe(recipe(folder.parent, **sections), registry=registry)


def norms(packed: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in load_file(packed / "model.safetensors").items() if "norm" in name}


def said(packed: Path) -> tuple[str | None, str | None]:
    """What config.json and the manifest say."""
    config = json.loads((packed / "config.json").read_text())["quantization_config"]
    manifest = json.loads((packed / "edgerazor.json").read_text())
    return config.get("unquantized_dtype"), manifest.get("unquantized_dtype")


@pytest.mark.parametrize("name", DTYPES)
def test_a_base_that_is_packed_keeps_its_values(name: str, registry: Registry, tmp_path: Path) -> None:
    folder = base(tmp_path / "model", name)
    packed = pack_model(recipe_of(folder, registry), registry=registry, output=tmp_path / "packed").folder
    before = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").state_dict()
    assert norms(packed).keys() == {key for key in before if "norm" in key}
    for key, tensor in norms(packed).items():
        assert torch.equal(tensor.to(DTYPES[name]), before[key])
    assert {tensor.dtype for key, tensor in norms(packed).items() if tensor[0] == TELLING[name]} == {DTYPES[name]}
    assert said(packed) == ((name, name) if name == "float16" else (None, None))
    verify_checkpoint(packed, logits=True).raise_if_damaged()
    loaded = load_model(packed).state_dict()
    assert all(torch.equal(loaded[key], before[key]) for key in norms(packed))


@pytest.mark.slow
@pytest.mark.parametrize("name", DTYPES)
def test_a_run_rounds_to_the_dtype_of_its_base(name: str, registry: Registry, tmp_path: Path) -> None:
    """The figures of a run, its packed checkpoint and a packing of its latent weights hold the same values."""
    training = {"max_steps": 2, "save_steps": 2}
    written = recipe_of(base(tmp_path / "model", name), registry, training=training)
    result = train(written, registry=registry, output=tmp_path / "run")
    assert result.checkpoint is not None
    stored, dtype = norms(result.checkpoint), torch.float16 if name == "float16" else torch.bfloat16
    latent = tmp_path / "run" / "checkpoints" / "checkpoint-2"
    trained = load_file(latent / "model.safetensors")
    assert all(tensor.dtype == dtype and torch.equal(tensor, trained[key].to(dtype)) for key, tensor in stored.items())
    assert said(result.checkpoint) == ((name, name) if name == "float16" else (None, None))
    verify_checkpoint(result.checkpoint).raise_if_damaged()
    again = written.model_copy(update={"model": written.model.model_copy(update={"name_or_path": str(latent)})})
    packed = pack_model(again, registry=registry, output=tmp_path / "packed").folder
    assert said(packed) == said(result.checkpoint)
    once, twice = (load_file(folder / "model.safetensors") for folder in (result.checkpoint, packed))
    assert once.keys() == twice.keys() and all(torch.equal(tensor, twice[key]) for key, tensor in once.items())


@pytest.mark.usefixtures("onnx_operators")
@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("target", ["gguf", pytest.param("onnx", marks=pytest.mark.slow)])
def test_exports_hold_the_same_values(name: str, target: str, registry: Registry, tmp_path: Path) -> None:
    pytest.importorskip("gguf" if target == "gguf" else "onnx_ir")
    folder = base(tmp_path / "model", name)
    packed = pack_model(recipe_of(folder, registry), registry=registry, output=tmp_path / "packed").folder
    checkpoint, path = open_checkpoint(packed, registry=registry), tmp_path / "export"
    exporter = registry.build(registry.params("exporter", target, path=str(path)))
    exporter.export(checkpoint, path)
    found = exporter.verify(path, checkpoint)
    assert found.tensors > 0 and not found.different


def test_a_manifest_that_says_another_dtype_is_a_fault(registry: Registry, tmp_path: Path) -> None:
    folder = base(tmp_path / "model", "float16")
    packed = pack_model(recipe_of(folder, registry), registry=registry, output=tmp_path / "packed").folder
    manifest = json.loads((packed / "edgerazor.json").read_text())
    del manifest["unquantized_dtype"]
    (packed / "edgerazor.json").write_text(json.dumps(manifest))
    assert verify_checkpoint(packed).faults == ("edgerazor.json: unquantized_dtype differs from config.json",)
