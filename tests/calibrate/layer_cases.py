"""What tests of calibrated layers share: a recipe, texts, processors, and a run that is stopped."""

from pathlib import Path
from typing import Any

from edgerazor.core.registry import Registry
from edgerazor.kernels.processor import Processor
from edgerazor.schemas.data import DataSection
from edgerazor.schemas.recipe import Recipe, load_recipe

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
