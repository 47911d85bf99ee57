"""Whether a recipe goes on with a run: what determines the result is what the run was started with."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgerazor.core.ranks import launched
from edgerazor.core.registry import Registry
from edgerazor.errors import RecipeError, TrainingError
from edgerazor.schemas.recipe import Recipe, load_recipe
from edgerazor.schemas.training import TrainingSection
from edgerazor.training.split import resumed_split

_LENGTH = frozenset({"max_steps", "max_seconds", "num_train_epochs"})
_LOGGING = frozenset({"logging_steps", "logging_first_step", "logging_dir", "report_to", "run_name"})
_LOADING = frozenset(
    {f"dataloader_{key}" for key in ("num_workers", "pin_memory", "persistent_workers", "prefetch_factor")}
)
_BEGINNING = frozenset({"start_samples"})  # weights come from the checkpoint
_SAVING = frozenset({"save_strategy", "save_steps", "save_total_limit"})
_MEASURING = ("every_steps", "batches", "batch_size")
_ABSENT = object()
_LONGEST = 60


def check_resumable(recipe: Recipe, path: Path, *, registry: Registry, checkpoint: Path | None = None) -> str | None:
    """Compare a recipe with the resolved one at `path`, by which a run was started.

    How long it trains may change, the number of rows that a start is calibrated on, and what is logged, saved,
    evaluated and exported. Where evaluations choose the best model or lower the learning rate, they and the saves must
    be the same too. Another number of processes may split the same steps in another way.

    Args:
        checkpoint: from which it goes on.

    Returns:
        What another number of processes changes; None for the same.

    Raises:
        TrainingError: there is no file at `path`, or as `check_split`.
        RecipeError: with a line for every key that differs in what determines the result, its value and the former one.
    """
    if not path.exists():
        raise TrainingError(f"{path}: is missing, so nothing says what the run was started with; start a new one")
    started, note = load_recipe(path, registry=registry), None
    if checkpoint is not None:
        split, note = resumed_split(checkpoint, recipe.training, launched()[1])
        started = started.model_copy(update={"training": started.training.model_copy(update=split)})
    measured = _evaluations_decide(started.training) or _evaluations_decide(recipe.training)
    before, now = (_determining(content.to_dict(), measured) for content in (started, recipe))
    problems = [
        f"{key}: is {_shown(new)}, but was {_shown(old)} when the run was started ({path}); resume with that, or start "
        "a new run"
        for key, old, new in _differences(before, now)
    ]
    if problems:
        raise RecipeError(problems)
    return note


def _evaluations_decide(training: TrainingSection) -> bool:
    """Whether held-out figures have a say in what a run comes to."""
    return training.load_best_model_at_end or training.lr_scheduler_type == "reduce_lr_on_plateau"


def _determining(recipe: dict[str, Any], measured: bool) -> dict[str, Any]:
    """The part of a recipe that determines the result of a run.

    Args:
        measured: held-out figures have a say in it.
    """
    kept = {section: recipe[section] for section in ("model", "data", "quantization", "distillation")}
    free = _LENGTH | _LOGGING | _LOADING | _BEGINNING | (frozenset() if measured else _SAVING)
    kept["training"] = {key: value for key, value in recipe["training"].items() if key not in free}
    if measured:
        kept["evaluation"] = {key: recipe["evaluation"][key] for key in _MEASURING}
    return kept


def _differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Key path, former and present value of the innermost values that differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            inside = f"{path}.{key}" if path else key
            yield from _differences(old.get(key, _ABSENT), new.get(key, _ABSENT), inside)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, now) in enumerate(zip(old, new, strict=True)):
            yield from _differences(before, now, f"{path}[{index}]")
    elif old != new:
        yield path, old, new


def _shown(value: Any) -> str:
    text = "absent" if value is _ABSENT else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
