"""The folder of a run: what may be written there, and whether a run in it can be continued."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from transformers import Trainer

from edgerazor.checkpoint.training_checkpoint import newest_whole, saved_steps
from edgerazor.core.atomic import remove_abandoned
from edgerazor.core.locks import locked
from edgerazor.core.registry import Registry
from edgerazor.errors import TrainingError
from edgerazor.schemas.recipe import Recipe
from edgerazor.training.resume import check_resumable

CHECKPOINTS, PACKED, METRICS, RECIPE = "checkpoints", "packed", "metrics.json", "recipe.yaml"


def prepare_output(
    output: Path, recipe: Recipe, *, resume: bool, registry: Registry, console: Console | None = None
) -> str | None:
    """Check that the folder can be used; return the checkpoint to resume from, the newest that is whole.

    Args:
        console: told, in the first process, which files of newer checkpoints are missing or damaged.

    Raises:
        TrainingError: the folder holds a run and `resume` is False, holds no whole checkpoint and it is True, or cannot
            be written.
        RecipeError: the run in it was started by a recipe that differs in what determines the result.
    """
    checkpoints = output / CHECKPOINTS
    last = None
    if resume:
        last, problems = newest_whole(checkpoints, resume=True)
        if last is None and problems:
            raise TrainingError("\n".join([f"{output}: nothing to resume: no checkpoint is whole", *problems]))
        if last is None:
            raise TrainingError(f"{output}: nothing to resume: there is no checkpoint under {checkpoints}")
        check_resumable(recipe, output / RECIPE, registry=registry)
        if console and problems and os.environ.get("RANK", "0") == "0":
            console.print("\n".join([*problems, f"going on from {last}"]), soft_wrap=True, markup=False)
    elif saved_steps(checkpoints) or (output / PACKED).exists():
        raise TrainingError(f"{output}: already holds a run; resume it with --resume, or choose another folder")
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise TrainingError(f"{output}: cannot be written: {error.strerror}") from error
    return None if last is None else str(last)


@contextmanager
def claimed(output: Path, trainer: Trainer) -> Iterator[None]:
    """Hold the folder of a run, which `prepare_output` made, against other runs, and clear what killed ones left there.

    Raises:
        TrainingError: another process trains into it.
    """
    if not trainer.is_world_process_zero():
        yield
        return
    with locked(output) as held:
        if held is False:
            raise TrainingError(f"{output}: another process is training into this folder; choose another one")
        for folder in (output, output / CHECKPOINTS):
            remove_abandoned(folder)
        yield
