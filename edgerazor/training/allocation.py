"""`training.allocation`: widths by sensitivity before a run, the same in every process and whenever it goes on."""

from pathlib import Path
from typing import Any

import yaml
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from pydantic import ValidationError

from edgerazor.allocate import AllocationSettings, allocate
from edgerazor.core.atomic import write_text
from edgerazor.core.registry import Registry
from edgerazor.core.run_folder import ALLOCATION
from edgerazor.data import Data
from edgerazor.errors import RecipeError, TrainingError
from edgerazor.schemas.allocation import DEFAULT_CANDIDATES, AllocationSection
from edgerazor.schemas.files import read_mapping
from edgerazor.schemas.quantization import QuantizationSection
from edgerazor.schemas.recipe import Recipe


def allocated_recipe(recipe: Recipe, data: Data, output: Path, *, registry: Registry, resumed: bool) -> Recipe:
    """The recipe with one weight rule for every width, and nothing left to allocate.

    The first process chooses, writes the rules to `allocation.yaml` in the folder of the run, and tells the others. A
    run that goes on takes them from there.

    Args:
        data: of the recipe; sensitivities are taken on its first training rows.
        output: folder of the run.
        resumed: the run goes on.

    Raises:
        RecipeError, PlanError, DataError: as `allocate`.
        TrainingError: a run that goes on has no allocation that can be read.
    """
    section = recipe.training.allocation
    if section is None:
        return recipe
    path, rules = output / ALLOCATION, [None]
    if PartialState().is_main_process:
        rules = [_kept_rules(path) if resumed else _chosen_rules(recipe, section, data, path, registry)]
    broadcast_object_list(rules)
    return _with_rules(recipe, rules[0], path, registry)


def _chosen_rules(recipe: Recipe, section: AllocationSection, data: Data, path: Path, registry: Registry) -> Any:
    """Weight rules as plain data, kept at `path`."""
    settings = AllocationSettings(
        section.target_bits,
        batches=-(-section.samples // recipe.training.per_device_train_batch_size),
        candidates=section.candidates or DEFAULT_CANDIDATES,
        free=section.free,
        rows=section.rows,
        measure=False,
        seed=recipe.training.seed,
    )
    found = allocate(recipe, settings, registry=registry, data=data)
    rules = found.recipe.quantization.model_dump(mode="json")["weights"]
    figures = {
        "bits": round(found.allocated.bits, 4),
        "predicted_kl": round(found.allocated.predicted, 6),
        "uniform": found.uniform_label,
        "predicted_kl_uniform": round(found.uniform.predicted, 6),
        "tokens": found.tokens,
        "notes": list(found.notes),
    }
    write_text(path, yaml.safe_dump({**figures, "weights": rules}, sort_keys=False, width=120))
    return rules


def said_of(path: Path) -> str:
    """What came of an allocation that was just made, for the screen."""
    found = read_mapping(path, expected="an allocation")
    figures = (
        f"allocation: {found['bits']:.4f} bits, predicted KL {found['predicted_kl']:.4f}, "
        f"{found['uniform']} everywhere {found['predicted_kl_uniform']:.4f}; widths are in {path}"
    )
    return "\n".join([figures, *(f"note: {note}" for note in found["notes"])])


def _kept_rules(path: Path) -> Any:
    """Weight rules of the run that is continued.

    Raises:
        TrainingError: they are not there.
    """
    try:
        return read_mapping(path, expected="the weight rules of the run that goes on").get("weights")
    except RecipeError as error:
        raise TrainingError(f"{error}; without its widths the run cannot go on; start a new one") from error


def _with_rules(recipe: Recipe, rules: Any, path: Path, registry: Registry) -> Recipe:
    section = recipe.quantization.model_dump(mode="json") | {"weights": rules}
    try:
        quantization = QuantizationSection.model_validate(section, context={"registry": registry})
    except ValidationError as error:
        raise TrainingError(f"{path}: weights: {error.errors()[0]['msg']}; start a new run") from error
    training = recipe.training.model_copy(update={"allocation": None})
    return recipe.model_copy(update={"quantization": quantization, "training": training})
