"""What tests of calibrated layers share: a recipe, texts, processors, and a run that is stopped."""

from pathlib import Path
from typing import Any

import torch

from edgerazor.calibrate.decoder import Decoder
from edgerazor.calibrate.inputs import Inputs
from edgerazor.core.apply import apply_plan
from edgerazor.core.plan import build_plan
from edgerazor.core.registry import Registry
from edgerazor.kernels.processor import Processor
from edgerazor.models.load import Models
from edgerazor.schemas.data import DataSection
from edgerazor.schemas.recipe import Recipe, load_recipe
from tests.families import family_model
from tests.runs import tokenizer

LAYERS = 3
FLOAT32, BFLOAT16 = Processor(), Processor(bfloat16=True)


def recipe_of(model: Path, registry: Registry, match: str = "*.layers.*") -> Recipe:
    rules = [{"match": match, "quantizer": {"name": "int", "bits": 3, "group_size": 32}}]
    return load_recipe({"model": {"name_or_path": str(model)}, "quantization": {"weights": rules}}, registry=registry)


def texts(folder: Path, seed: int = 0) -> Any:
    section = {"sources": [str(folder / "data.jsonl")], "sequence_length": 32, "seed": seed}
    return DataSection.model_validate(section)


class StoppedError(Exception):
    """As a signal would."""


def stop_at(layer: int, of: int = LAYERS) -> Any:
    def show(done: int, total: int) -> None:
        assert total == of
        if done == layer:
            raise StoppedError

    return show


def decoder_of(name: str, registry: Registry, folder: Path, dtype: torch.dtype = torch.float32) -> Decoder:
    """Of a family's model with 4-bit layers, which is in memory."""
    family_model(name, vocab_size=len(tokenizer())).to(torch.bfloat16).save_pretrained(folder / "model")
    tokenizer().save_pretrained(folder / "model")
    rules = [{"match": "*.layers.*", "quantizer": {"name": "int", "bits": 4, "group_size": 32}}]
    raw = {"model": {"name_or_path": str(folder / "model")}, "quantization": {"weights": rules}}
    recipe = load_recipe(raw, registry=registry)
    source = Models(recipe.model, registry).student
    model: Any = source.load(torch.float32).eval()
    plan = build_plan(model, recipe.quantization, adapter=source.adapter, registry=registry)
    apply_plan(model, plan, registry=registry)
    return Decoder(model, plan, None, dtype)


def same_inputs(first: Inputs, second: Inputs) -> bool:
    return len(first.parts) == len(second.parts) and all(map(torch.equal, first.parts, second.parts))
