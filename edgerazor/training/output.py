"""The folder of a run: what may be written there, and whether a run in it may be gone on with."""

import os
from pathlib import Path
from typing import Any

from transformers.trainer_utils import get_last_checkpoint

from edgerazor.core.registry import Registry
from edgerazor.errors import RecipeError, TrainingError
from edgerazor.schemas.recipe import Recipe, load_recipe

CHECKPOINTS, PACKED, METRICS, RECIPE = "checkpoints", "packed", "metrics.json", "recipe.yaml"
_MAY_CHANGE = frozenset(
    {"max_steps", "max_seconds", "num_train_epochs", "save_strategy", "save_steps", "save_total_limit", "logging_steps"}
    | {"logging_first_step", "logging_dir", "report_to", "run_name", "dataloader_num_workers", "dataloader_pin_memory"}
    | {"dataloader_persistent_workers", "dataloader_prefetch_factor", "use_cpu", "max_grad_norm"}
)


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
        _check_same(recipe, output / RECIPE, registry)
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe = output / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise TrainingError(f"{output}: cannot be written: {error.strerror}") from error
    return last


def _check_same(recipe: Recipe, path: Path, registry: Registry) -> None:
    if not path.exists():
        raise TrainingError(f"{path}: is missing, so nothing says what the run was started with; start a new one")
    before, now = load_recipe(path, registry=registry).to_dict(), recipe.to_dict()
    keys = [
        key for section in ("model", "data", "quantization", "distillation") for key in _different(before, now, section)
    ]
    keys += [key for key in _different(before, now, "training") if key.partition(".")[2] not in _MAY_CHANGE]
    if keys:
        raise RecipeError(
            [
                f"{key}: differs from {path}, by which the run was started; resume with that, or start anew"
                for key in keys
            ]
        )


def _different(before: dict[str, Any], now: dict[str, Any], section: str) -> list[str]:
    """Keys of one section whose values differ, or the section itself where it was added or left out."""
    old, new = before[section], now[section]
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [] if old == new else [section]
    return [f"{section}.{key}" for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
