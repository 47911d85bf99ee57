"""The date that a run's chat template is told: one and the same until the run, and what is measured of it, is over."""

from pathlib import Path

from edgerazor.data.clock import fix_date
from edgerazor.distill.teacher_cache.folder import date_of
from edgerazor.models.load import Models
from edgerazor.models.task import check_task
from edgerazor.schemas.paths import local_path
from edgerazor.schemas.recipe import Recipe, load_recipe


def with_run_date(recipe: Recipe, models: Models, started: Path | None) -> Recipe:
    """The recipe with a date if its chat template asks for one and `data.date` does not say it.

    Args:
        models: of the recipe.
        started: the resolved recipe of the run that is continued, whose date is taken; None for a new run, which has
            that of the teacher cache, or today's.

    Raises:
        RecipeError: the data are for another task than the model.
    """
    if recipe.data is not None:
        check_task(recipe.data, models.student)
    if recipe.data is None or recipe.data.task != "language_modeling" or recipe.data.date is not None:
        return recipe
    section = recipe.distillation
    if started is not None:
        before = load_recipe(started, registry=models.registry).data if started.exists() else None
        date = before.date if before else None
    else:
        cache = section.teacher_cache if section else None
        earlier = date_of(local_path(cache)) if cache else None
        date = fix_date(recipe.data, models.student.tokenizer, earlier=earlier).date
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"date": date})})
