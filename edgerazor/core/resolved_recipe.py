"""The resolved recipe: every default filled in, with the versions that filled them."""

from pathlib import Path

from edgerazor.core.atomic import replaced
from edgerazor.core.discovery import own_version
from edgerazor.core.plan import Plan
from edgerazor.core.registry import Registry
from edgerazor.schemas.recipe import Recipe, WrittenBy


def resolve_recipe(recipe: Recipe, *, registry: Registry, plan: Plan | None = None) -> Recipe:
    """The recipe with the versions of edgerazor and of every plugin, and with the group sizes of its plan."""
    recipe = recipe if plan is None else recipe.model_copy(update={"quantization": plan.quantization})
    written_by = WrittenBy(edgerazor=own_version(), plugins=registry.versions())
    return recipe.model_copy(update={"written_by": written_by})


def write_resolved_recipe(recipe: Recipe, path: Path, *, registry: Registry) -> None:
    """Write the resolved recipe as YAML, whole or not at all."""
    with replaced(path) as temporary:
        temporary.write_text(resolve_recipe(recipe, registry=registry).to_yaml(), encoding="utf-8")
