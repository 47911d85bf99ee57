"""The folder of a run: what may be written there, and whether a run in it can be continued."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from edgerazor.checkpoint.training_checkpoint import newest_whole, saved_steps
from edgerazor.core.atomic import remove_abandoned
from edgerazor.core.claims import claimed
from edgerazor.core.ranks import launched
from edgerazor.core.registry import Registry
from edgerazor.core.run_folder import CHECKPOINTS, PACKED, RECIPE
from edgerazor.errors import TrainingError
from edgerazor.schemas.recipe import Recipe
from edgerazor.training.resume import check_resumable


def prepare_output(
    output: Path, recipe: Recipe, *, resume: bool, registry: Registry, console: Console | None = None
) -> str | None:
    """Check that the folder can be used; return the checkpoint to resume from, the newest that is whole.

    Args:
        console: told, in the first process, which files of newer checkpoints are missing or damaged, and what another
            number of processes changes.

    Raises:
        TrainingError: the folder holds a run and `resume` is False, holds no whole checkpoint and it is True, or cannot
            be written; or as `check_split`.
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
        note = check_resumable(recipe, output / RECIPE, registry=registry, checkpoint=last)
        notes = [*problems, *([f"going on from {last}"] if problems else []), *([note] if note else [])]
        if console and notes and launched()[0] == 0:
            console.print("\n".join(notes), soft_wrap=True, markup=False)
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
def claimed_run(output: Path) -> Iterator[None]:
    """Hold the folder of a run against other runs, and clear what killed ones left there; the first process does.

    Raises:
        OutputError: another process trains into it, or nothing can be written there.
    """
    if launched()[0] != 0:
        yield
        return
    with claimed(output, inside=True):
        for folder in (output, output / CHECKPOINTS):
            remove_abandoned(folder)
        yield
