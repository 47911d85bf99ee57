"""The folder of a run: what may be written there, and whether a run in it may be gone on with."""

import os
from pathlib import Path

from transformers.trainer_utils import get_last_checkpoint

from edgerazor.core.registry import Registry
from edgerazor.errors import TrainingError
from edgerazor.schemas.recipe import Recipe
from edgerazor.training.resume import check_resumable

CHECKPOINTS, PACKED, METRICS, RECIPE = "checkpoints", "packed", "metrics.json", "recipe.yaml"


def prepare_output(output: Path, recipe: Recipe, *, resume: bool, registry: Registry) -> str | None:
    """Check that the folder can be used; return the checkpoint to resume from.

    Raises:
        TrainingError: the folder holds a run and `resume` is False, holds none and it is True, or cannot be written.
        RecipeError: the run in it was started by a recipe that differs in what determines the result.
    """
    checkpoints = output / CHECKPOINTS
    last = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    if resume and last is None:
        raise TrainingError(f"{output}: nothing to resume: there is no checkpoint under {checkpoints}")
    if not resume and (last is not None or (output / PACKED).exists()):
        raise TrainingError(f"{output}: already holds a run; resume it with --resume, or choose another folder")
    if resume:
        check_resumable(recipe, output / RECIPE, registry=registry)
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe = output / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise TrainingError(f"{output}: cannot be written: {error.strerror}") from error
    return last
