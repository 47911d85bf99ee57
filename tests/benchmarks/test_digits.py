"""The digits: every contestant is a recipe that fits its teacher, steps are equal, and the table tells the spread."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from edgerazor.core.registry import Registry
from edgerazor.models.load import plan_recipe
from edgerazor.models.types import auto_class
from edgerazor.schemas.recipe import load_recipe


@pytest.mark.parametrize("family", ["vit", "resnet"])
def test_every_contestant_is_a_recipe_of_its_width(family: str, tmp_path: Path, registry: Registry) -> None:
    digits, teachers = import_module("digits"), import_module("digits_teachers")
    config = teachers.config_of(family)
    auto_class(config).from_config(config).save_pretrained(tmp_path / "teacher")
    pictures = {"training": tmp_path / "training", "held_out": tmp_path / "held_out"}
    seen = set()
    for contestant in digits.CONTESTANTS:
        raw = digits.recipe_of(contestant, tmp_path / "teacher", pictures, family=family, steps=7, seed=3)
        recipe = load_recipe(raw, registry=registry)
        plan = plan_recipe(recipe, registry=registry)
        assert recipe.training.max_steps == 7 and recipe.training.seed == recipe.data.seed == 3
        assert (recipe.distillation is not None) == (contestant.method == "distilled")
        ends = sum(module.weights for module in plan.quantized if module.nominal_bits == 4)
        body = [module for module in plan.quantized if ".layers." in module.name]
        mean = sum(module.weights * module.nominal_bits for module in body) / sum(module.weights for module in body)
        assert ends and mean == pytest.approx(contestant.bits, abs=0.02)
        seen.add(contestant.slug)
    assert len(seen) == len(digits.CONTESTANTS)


def test_the_table_gives_mean_and_spread() -> None:
    def unit(seed: int, top1: float) -> dict[str, Any]:
        facts = {"family": "vit", "name": "distilled, 4 bit", "method": "distilled", "bits": 4, "seed": seed}
        return facts | {"top1": top1, "kl_teacher": 0.5, "top1_agreement": 1.0, "bytes": 2000, "seconds": 1.0}

    told = import_module("digits_report").table([unit(0, 0.97), unit(1, 0.99)])
    assert "| vit | distilled | 4 | 2 | 98.00 ± 1.00 % | 0.5000 ± 0.0000 | 100.00 ± 0.00 % | 2 | 1 |" in told


def test_shapes_are_those_of_the_published_models() -> None:
    config_of = import_module("image_speed").config_of
    with torch.device("meta"):
        sizes = {
            family: sum(
                value.numel() for value in auto_class(config_of(family)).from_config(config_of(family)).parameters()
            )
            for family in ("vit", "resnet")
        }
    assert sizes == {"vit": 22_050_664, "resnet": 11_689_512}
