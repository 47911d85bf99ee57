"""Which data `evaluate` reads: what the checkpoint's recipe held out, or a file, changed by `--set data.…`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgerazor.checkpoint import open_checkpoint
from edgerazor.core.registry import Registry
from edgerazor.errors import RecipeError
from edgerazor.inference.open_runtime import is_exported, open_runtime
from edgerazor.schemas.data import DataSection
from edgerazor.schemas.overrides import apply_overrides, parse_overrides
from edgerazor.schemas.recipe import key_path


def evaluation_data(
    checkpoint: Path, path: Path | None, overrides: Sequence[str] = (), *, registry: Registry
) -> DataSection | None:
    """The data section to evaluate on; None leaves the choice to the checkpoint's recipe.

    Sequence length, packing and the like are those of the checkpoint's recipe in any case.

    Args:
        checkpoint: a packed checkpoint or an exported model.
        path: file or folder to read whole instead of the held-out data.
        overrides: `data.key=value` strings.
        registry: loaded plugins.

    Raises:
        CheckpointError: `checkpoint` is no packed checkpoint.
        ExportError: nor any exported model that can be loaded.
        RecipeError: an override names no key of the data section, or there is no data section to change.
    """
    if path is None and not overrides:
        return None
    stored: dict[str, Any] = dict(_recipe(checkpoint, registry).get("data") or {})
    if path is not None:
        stored |= {"sources": [str(path)], "held_out": None}
    elif not stored.get("held_out"):
        raise RecipeError(f"{checkpoint}: its recipe holds out no data (data.held_out); give a file with --data")
    parsed = parse_overrides(overrides)
    foreign = [override for override in parsed if override.path[:1] != ("data",) or len(override.path) == 1]
    changed, problems = apply_overrides({"data": stored}, [override for override in parsed if override not in foreign])
    problems += [
        f"{override.text}: evaluate takes data.key=value alone; what else the recipe says is fixed in the checkpoint"
        for override in foreign
    ]
    try:
        section = DataSection.model_validate(changed["data"])
    except ValidationError as error:
        problems += [f"{key_path(('data', *line['loc']))}: {line['msg']}" for line in error.errors()]
    else:
        if path is None and section.held_out is None:
            problems.append("data.held_out: is null, so only what was trained on is left; give a file with --data")
    if problems:
        raise RecipeError([f"--set {line}" for line in problems])
    return section


def _recipe(path: Path, registry: Registry) -> Mapping[str, Any]:
    if not is_exported(path, registry):
        return open_checkpoint(path, registry=registry).recipe
    runtime = open_runtime(path, registry=registry)
    try:
        return runtime.recipe
    finally:
        runtime.close()
