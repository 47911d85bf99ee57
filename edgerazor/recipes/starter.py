"""The recipe that `edgerazor init` writes."""

import json
from importlib import resources
from pathlib import Path

import yaml

from edgerazor.core.atomic import write_text
from edgerazor.errors import RecipeError
from edgerazor.schemas.base import nearest
from edgerazor.schemas.preset import local_config, preset_names

MODEL, PRESET, LENGTH = "models/student", "1.88-bit", 1024


def write_starter(path: Path, *, model: str = MODEL, preset: str = PRESET, force: bool = False) -> None:
    """Write the commented starter recipe to `path`.

    Args:
        path: file to write.
        model: folder or hub name that it starts from.
        preset: name of the preset.
        force: replace a file that is there.

    Raises:
        RecipeError: there is no such preset, the file is there already and `force` is not set, or the folder cannot be
            written to.
    """
    if preset not in preset_names():
        raise RecipeError(f"no preset named '{preset}'{nearest(preset, preset_names())}")
    if path.exists() and not force:
        raise RecipeError(f"{path}: is there already; choose another name, or --force to overwrite it")
    text = (resources.files("edgerazor.recipes") / "starter.yaml").read_text(encoding="utf-8")
    text = text.replace(f"name_or_path: {MODEL}  ", f"name_or_path: {_scalar(model)}  ")
    text = text.replace(f"\npreset: {PRESET}\n", f"\npreset: {preset}\n")
    text = text.replace(f"sequence_length: {LENGTH} ", f"sequence_length: {min(LENGTH, _positions(model))} ")
    try:
        write_text(path, text)
    except OSError as error:
        raise RecipeError(f"{path}: cannot be written: {error.strerror or error}") from error


def _positions(model: str) -> int:
    """Positions of a model on this machine; `LENGTH` where its configuration does not say."""
    config = local_config(model)
    try:
        content = json.loads(config.read_text(encoding="utf-8")) if config else {}
    except (OSError, ValueError, RecursionError):
        return LENGTH  # `check` says what is wrong with the file
    positions = content.get("max_position_embeddings") if isinstance(content, dict) else None
    return positions if isinstance(positions, int) and positions > 0 else LENGTH


def _scalar(text: str) -> str:
    """Text as YAML writes it on one line, in quotes where it needs them."""
    return yaml.safe_dump([text], default_flow_style=True, width=10**6).strip()[1:-1]
