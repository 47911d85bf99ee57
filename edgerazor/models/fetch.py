"""config.json of a hub model, fetched before a recipe is read whose preset depends on the model's family."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgerazor.core.registry import Registry
from edgerazor.schemas.files import read_mapping
from edgerazor.schemas.model import ModelSection
from edgerazor.schemas.overrides import apply_overrides, parse_overrides
from edgerazor.schemas.preset import local_config
from edgerazor.schemas.recipe import SECTIONS, SETTLED_FIRST


def fetch_config(source: str | Path | Mapping[str, Any], *, registry: Registry, overrides: Sequence[str] = ()) -> None:
    """Fetch it into the cache, where `load_recipe` finds it; do nothing where the family is known, or not needed.

    Args:
        source: path of a recipe, or the recipe as a dict.
        registry: loaded plugins.
        overrides: as for `load_recipe`.

    Raises:
        RecipeError: the file cannot be read.
        CheckpointError: there is no such folder, and the hub cannot be reached or has no such model.
    """
    raw = dict(source) if isinstance(source, Mapping) else read_mapping(Path(source), expected=SECTIONS)
    raw, _ = apply_overrides(raw, [change for change in parse_overrides(overrides) if change.path[:1] in SETTLED_FIRST])
    try:
        section = ModelSection.model_validate(raw.get("model"))
    except ValidationError:
        return  # reading the recipe reports it, with everything else that is wrong
    known = section.family or local_config(section.name_or_path, section.revision)
    if raw.get("preset") is not None and not known:
        from edgerazor.models.load import Models

        _ = Models(section, registry).student.config
