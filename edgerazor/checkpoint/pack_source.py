"""`pack`: which recipe applies to a model or to a run, then one rounding and one packed checkpoint."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgerazor.checkpoint import PackResult, pack_model
from edgerazor.checkpoint.training_checkpoint import FILES, check_files, newest_whole
from edgerazor.core.registry import Registry
from edgerazor.errors import CheckpointError, RecipeError
from edgerazor.models.fetch import fetch_config
from edgerazor.schemas.recipe import Recipe, load_recipe


def pack_source(
    source: str,
    *,
    registry: Registry,
    output: Path,
    preset: str | None = None,
    recipe: Path | None = None,
    overrides: Sequence[str] = (),
) -> PackResult:
    """Pack a 16-bit model by a preset or a recipe, or the newest checkpoint of a run by the run's own recipe.

    Args:
        source: folder or hub name of a 16-bit model, or the folder of a run.
        registry: loaded plugins.
        output: folder of the packed checkpoint.
        preset: name of a preset, whose rules then replace those of `recipe`.
        recipe: file with a `quantization` section or a preset.
        overrides: `key.path=value` strings.

    Raises:
        RecipeError: neither preset nor recipe is given for a model, or the recipe has faults.
        CheckpointError: the run holds no whole checkpoint, each damaged file is named; or the model cannot be loaded.
        PlanError: the recipe does not fit the model.
    """
    weights, notes = source, list[str]()
    own_recipe = Path(source) / "recipe.yaml"
    if own_recipe.is_file() and not (Path(source) / "config.json").is_file():
        weights, notes = _latest_weights(Path(source))
        recipe = recipe or (own_recipe if preset is None else None)
    elif (Path(source) / FILES).is_file():
        check_files(Path(source), resume=False)
    chosen = packing_recipe(weights, registry, preset, recipe, overrides)
    result = pack_model(chosen, registry=registry, output=output)
    return replace(result, notes=(*notes, *result.notes))


def packing_recipe(
    weights: str, registry: Registry, preset: str | None, recipe: Path | None, overrides: Sequence[str]
) -> Recipe:
    """The recipe that a model is packed by: that of a preset, or the one in a file, for these weights.

    Raises:
        RecipeError: neither or both are given, or the recipe has faults.
    """
    if recipe is None:
        if preset is None:
            raise RecipeError(f"{weights}: pack needs --preset NAME or --recipe FILE to know what to pack it to")
        content: Mapping[str, Any] = {"model": {"name_or_path": weights}, "preset": preset}
        fetch_config(content, registry=registry, overrides=overrides)
        return load_recipe(content, registry=registry, overrides=overrides)
    changes = [f"model.name_or_path={json.dumps(weights)}", *overrides]
    if preset is not None:
        raise RecipeError(f"--preset {preset} and --recipe {recipe} both say what to pack to; give one of them")
    return load_recipe(recipe, registry=registry, overrides=changes)


def _latest_weights(run: Path) -> tuple[str, list[str]]:
    checkpoints = run / "checkpoints"
    packed = run / "packed"
    if packed.is_dir():
        raise CheckpointError(f"{run}: this run is finished and packed already: {packed}")
    last, problems = newest_whole(checkpoints, resume=False)
    if last is None and problems:
        raise CheckpointError("\n".join([f"{run}: this run holds no whole checkpoint:", *problems]))
    if last is None:
        raise CheckpointError(f"{run}: this run holds no checkpoint under {checkpoints} yet")
    return str(last), [*problems, f"{last.name} is the newest whole checkpoint of the run"]
