"""Everything that can be said about a recipe before a weight is loaded."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgerazor.core.registry import Registry
from edgerazor.errors import EdgeRazorError, RecipeError
from edgerazor.schemas.data import DataSection
from edgerazor.schemas.model import ModelSection
from edgerazor.schemas.paths import local_path
from edgerazor.schemas.preset import local_config
from edgerazor.schemas.recipe import Recipe, load_recipe
from edgerazor.schemas.training import start_fault

if TYPE_CHECKING:
    from edgerazor.core.plan import Plan
    from edgerazor.models.load import Models

_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


@dataclass(frozen=True)
class CheckResult:
    """A recipe without faults.

    Attributes:
        recipe: with every default filled in.
        plan: what it does to its model; None if the model is not on this machine.
        notes: what was not checked and what stays at 16 bit, one line each.
    """

    recipe: Recipe
    plan: "Plan | None"
    notes: tuple[str, ...]


def check_recipe(source: Path, *, registry: Registry, overrides: Sequence[str] = ()) -> CheckResult:
    """Validate a recipe, look for its data files, import its components, and plan it on the meta device.

    Raises:
        RecipeError: with one line per fault.
    """
    recipe = load_recipe(source, registry=registry, overrides=overrides)
    data_problems = [
        f"{key}: there is no file or folder {path}"
        for key, path in (_data_paths(recipe.data) if recipe.data else ())
        if not local_path(path).exists()
    ]
    model_problems, notes = _model_problems(recipe)
    component_problems = _component_problems(recipe, registry)
    start_problems = [fault] if (fault := start_fault(recipe.training.start)) else []
    problems = [*data_problems, *model_problems, *start_problems, *component_problems]
    plan = None
    if _is_here(recipe.model, recipe.model.name_or_path) and not component_problems:
        from edgerazor.models.load import Models

        models = Models(recipe.model, registry)
        plan, plan_problems = _plan(models, recipe)
        problems += plan_problems
        unfit, length_notes = _data_problems(models, recipe.data)
        problems, notes = problems + unfit, notes + length_notes
        if _is_here(recipe.model, recipe.model.teacher_name):
            problems += _teacher_problems(models, recipe)
    if problems:
        raise RecipeError([f"{source}: {line}" for line in problems])
    if recipe.data is None:
        notes.append("the recipe has no data section; it can be planned and packed, not trained")
    return CheckResult(recipe, plan, (*notes, *(plan.notes if plan else ())))


def _is_here(model: ModelSection, name: str) -> bool:
    """Whether config.json of `name`, at its own revision, is on this machine."""
    return local_config(name, model.revision_of(name)) is not None


def _model_problems(recipe: Recipe) -> tuple[list[str], list[str]]:
    """Model folders that cannot be, and notes about models that may be on the hub."""
    problems, notes = [], []
    for key, name in (("name_or_path", recipe.model.name_or_path), ("teacher", recipe.model.teacher)):
        if name is None or _is_here(recipe.model, name):
            continue
        if Path(name).is_dir():
            problems.append(f"model.{key}: the folder {name} holds no config.json")
        elif _HUB_NAME.fullmatch(name):
            notes.append(f"model.{key}: {name} is not on this machine; shapes and vocabulary were not checked")
        else:
            problems.append(f"model.{key}: there is no folder {name}")
    return problems, notes


def _data_paths(data: DataSection) -> Iterator[tuple[str, str]]:
    for index, source in enumerate(data.sources):
        yield f"data.sources[{index}].path", source.path
    if isinstance(data.held_out, tuple):
        for index, source in enumerate(data.held_out):
            yield f"data.held_out[{index}].path", source.path


def _data_problems(models: "Models", data: DataSection | None) -> tuple[list[str], list[str]]:
    """Faults and notes: another task than the model's, a sequence length for which it has too few positions."""
    from edgerazor.models.positions import check_positions
    from edgerazor.models.task import check_task

    if data is None:
        return [], []
    try:
        check_task(data, models.student)
        note = check_positions(models.student.config, data.sequence_length, "data.sequence_length:")
    except EdgeRazorError as error:
        return [str(error)], []
    return [], [note] if note else []


def _component_problems(recipe: Recipe, registry: Registry) -> list[str]:
    problems = []
    losses = recipe.distillation.losses if recipe.distillation else ()
    for key, components in (("distillation.losses", losses), ("export", recipe.export)):
        for index, params in enumerate(components):
            try:
                registry.build(params)
            except EdgeRazorError as error:
                problems.append(f"{key}[{index}]: {error}")
    return problems


def _plan(models: "Models", recipe: Recipe) -> "tuple[Plan | None, list[str]]":
    from edgerazor.models.load import plan_models

    try:
        return plan_models(models, recipe), []
    except EdgeRazorError as error:
        return None, str(error).splitlines()


def _teacher_problems(models: "Models", recipe: Recipe) -> list[str]:
    """What keeps this student from learning from this teacher: vocabularies, depths, widths, what a cache lacks."""
    from edgerazor.distill import Distiller
    from edgerazor.distill.teacher_cache import TeacherCache

    student, registry = models.student, models.registry
    try:
        adapters = {"adapter": student.adapter, "teacher_adapter": models.teacher_adapter}
        models.check_vocabularies()
        distiller = Distiller.from_recipe(recipe.distillation, registry=registry, **adapters)
        distiller.check_models(student.config, models.teacher.config)
        if recipe.distillation is not None and recipe.distillation.teacher_cache is not None:
            cache = TeacherCache(local_path(recipe.distillation.teacher_cache))
            cache.check_recipe(distiller, student.vocabulary_size, recipe.model)
    except EdgeRazorError as error:
        return str(error).splitlines()
    return []
