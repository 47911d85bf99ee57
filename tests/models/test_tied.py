"""config.json ties head and embedding, the files hold two different ones: the files decide, all the way down."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from edgerazor.checkpoint import load_model, pack_model, verify_checkpoint
from edgerazor.core.registry import Registry
from edgerazor.models.load import plan_recipe
from edgerazor.schemas.recipe import Recipe, load_recipe
from edgerazor.training import train
from tests.packed_cases import logits
from tests.runs import recipe

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def with_head(folder: Path, *, other: bool) -> Path:
    """Give the tied model of `recipe` a head in its file: another one, or a copy of the embedding."""
    tensors = load_file(folder / "model" / "model.safetensors")
    values = torch.randn(tensors[EMBEDDING].shape, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    tensors[HEAD] = 0.2 * values if other else tensors[EMBEDDING].clone()
    save_file(tensors, folder / "model" / "model.safetensors", metadata={"format": "pt"})
    assert json.loads((folder / "model" / "config.json").read_text())["tie_word_embeddings"] is True
    return folder / "model"


def read(folder: Path, registry: Registry, *, head: bool = True, **sections: Any) -> Recipe:
    content = recipe(folder, **sections)
    if not head:
        content["quantization"]["weights"].insert(0, {"match": "lm_head", "quantizer": None})
    return load_recipe(content, registry=registry)


@pytest.mark.parametrize("head", [True, False], ids=["quantized head", "16-bit head"])
def test_a_head_of_its_own_is_planned_packed_and_loaded(tmp_path: Path, registry: Registry, head: bool) -> None:
    read(tmp_path, registry)
    source = with_head(tmp_path, other=True)
    loaded = read(tmp_path, registry, head=head)
    plan = plan_recipe(loaded, registry=registry)
    assert not any(module.tied_to for module in plan.modules)
    assert f"{HEAD}: config.json ties it to the embedding, but the files hold other values" in "\n".join(plan.notes)
    folder = pack_model(loaded, registry=registry, output=tmp_path / "packed").folder
    assert verify_checkpoint(folder, logits=True).ok
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is False
    plain = load_model(folder, dequantize=True)
    assert not torch.equal(plain.lm_head.weight, plain.model.embed_tokens.weight)
    if not head:
        stored = AutoModelForCausalLM.from_pretrained(source, dtype="auto").lm_head.weight
        assert torch.equal(plain.lm_head.weight, stored)


def test_a_copy_of_the_embedding_stays_tied(tmp_path: Path, registry: Registry) -> None:
    read(tmp_path, registry)
    with_head(tmp_path, other=False)
    plan = plan_recipe(read(tmp_path, registry), registry=registry)
    assert [module.tied_to for module in plan.modules if module.name == "lm_head"] == ["model.embed_tokens"]
    assert not any("ties it" in note for note in plan.notes)


def test_a_student_keeps_the_head_it_was_trained_with(tmp_path: Path, registry: Registry) -> None:
    read(tmp_path, registry)
    with_head(tmp_path, other=True)
    loaded = read(tmp_path, registry, training={"max_steps": 1, "save_steps": 1})
    result = train(loaded, registry=registry, output=tmp_path / "run")
    packed = load_model(result.checkpoint, dtype=torch.float32)
    latent = load_recipe(
        {**loaded.to_dict(), "model": {"name_or_path": str(tmp_path / "run" / "checkpoints" / "checkpoint-1")}},
        registry=registry,
    )
    again = pack_model(latent, registry=registry, output=tmp_path / "again").folder
    assert torch.equal(logits(packed), logits(load_model(again, dtype=torch.float32)))
