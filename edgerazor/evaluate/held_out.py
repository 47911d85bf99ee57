"""What `evaluate` reads, and how: what the checkpoint's recipe held out, or a file, changed by `--set`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from edgerazor.checkpoint import open_checkpoint
from edgerazor.core.contracts import ClassifierRuntime
from edgerazor.core.registry import Registry
from edgerazor.errors import RecipeError
from edgerazor.inference.open_runtime import is_exported, open_exported
from edgerazor.schemas.base import Schema
from edgerazor.schemas.data import DataSection
from edgerazor.schemas.evaluation import EvaluationSection
from edgerazor.schemas.overrides import Override, apply_overrides, parse_overrides
from edgerazor.schemas.recipe import key_path

_SIZES = (("batches",), ("batch_size",))
Section = TypeVar("Section", bound=Schema)


def evaluation_settings(
    checkpoint: Path, path: Path | None, overrides: Sequence[str] = (), *, registry: Registry
) -> tuple[DataSection | None, EvaluationSection | None]:
    """The data section to evaluate on and the size of its batches; None leaves either to the checkpoint's recipe.

    Sequence length, packing and the like are those of the checkpoint's recipe in any case.

    Args:
        checkpoint: a packed checkpoint or an exported model.
        path: file or folder, of texts or a classifier's pictures, to read whole instead of the held-out data.
        overrides: `data.key=value`, `evaluation.batches=value` or `evaluation.batch_size=value`.
        registry: loaded plugins.

    Raises:
        CheckpointError: `checkpoint` is no packed checkpoint.
        ExportError: nor any exported model that can be loaded.
        RecipeError: an override names another key, or there is no data section to change.
    """
    parsed = parse_overrides(overrides)
    of_data = [override for override in parsed if override.path[:1] == ("data",) and len(override.path) > 1]
    sizes = [override for override in parsed if override.path[:1] == ("evaluation",) and override.path[1:2] in _SIZES]
    problems = [
        f"{override.text}: evaluate takes data.key=value, evaluation.batches and evaluation.batch_size; "
        "what else the recipe says is fixed in the checkpoint"
        for override in parsed
        if override not in of_data and override not in sizes
    ]
    recipe = _recipe(checkpoint, registry) if parsed or path is not None else {}
    data = _data_section(checkpoint, recipe, path, of_data, problems) if of_data or path is not None else None
    evaluation = None
    if sizes:
        evaluation = _changed(EvaluationSection, "evaluation", dict(recipe.get("evaluation") or {}), sizes, problems)
    if problems:
        raise RecipeError([f"--set {line}" for line in problems])
    return data, evaluation


def _data_section(
    checkpoint: Path, recipe: Mapping[str, Any], path: Path | None, overrides: list[Override], problems: list[str]
) -> DataSection | None:
    stored: dict[str, Any] = dict(recipe.get("data") or {})
    if path is not None:
        stored |= {"sources": [str(path)], "held_out": None}
    elif not stored.get("held_out"):
        raise RecipeError(f"{checkpoint}: its recipe holds out no data (data.held_out); give a file with --data")
    section = _changed(DataSection, "data", stored, overrides, problems)
    if section is not None and path is None and section.held_out is None:
        problems.append("data.held_out: is null, so only what was trained on is left; give a file with --data")
    return section


def _changed(
    schema: type[Section], name: str, stored: dict[str, Any], overrides: list[Override], problems: list[str]
) -> Section | None:
    """The section with the overrides applied; None, and lines added to `problems`, where they do not fit."""
    changed, faults = apply_overrides({name: stored}, overrides)
    problems += faults
    try:
        return schema.model_validate(changed[name])
    except ValidationError as error:
        for line in error.errors():
            problems.append(f"{key_path((name, *line['loc']))}: {line['msg']}")
        return None


def _recipe(path: Path, registry: Registry) -> Mapping[str, Any]:
    """The recipe that a model holds; a classifier's without a data section gets one that says it is given pictures."""
    if not is_exported(path, registry):
        opened = open_checkpoint(path, registry=registry)
        recipe, of_images = opened.recipe, opened.facts.image is not None
    else:
        runtime = open_exported(path, registry=registry)
        recipe, of_images = runtime.recipe, isinstance(runtime, ClassifierRuntime)
        runtime.close()
    return {**recipe, "data": recipe.get("data") or {"task": "image_classification"}} if of_images else recipe
