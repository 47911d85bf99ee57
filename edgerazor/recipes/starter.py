"""The recipe that `edgerazor init` writes."""

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from edgerazor.core.atomic import write_text
from edgerazor.errors import RecipeError
from edgerazor.schemas.base import nearest
from edgerazor.schemas.preset import local_config, preset_names

MODEL, PRESET, LENGTH = "models/student", "edgerazor-1.88-bit", 1024
PRESET_OF_PICTURES = "1.88-bit"
_KV_CACHE = ", kv_cache: 64"
_START = "\n  # The presets edgerazor-* begin"
_PICTURES = """data:
  task: image_classification
  # A folder with a folder of pictures for each class, Parquet, or a folder saved with `datasets`.
  sources: data/train
  held_out: 0.02                    # a share of the pictures, or a list of sources
  images: {crop: 0.6, flip: true, mixup: 0.2}    # drawn at random in training; leave out what pictures lose by"""


def write_starter(path: Path, *, model: str = MODEL, preset: str | None = None, force: bool = False) -> None:
    """Write the commented starter recipe to `path`.

    Args:
        path: file to write.
        model: folder or hub name that it starts from.
        preset: name of the preset; None is our own at 1.88 bits, or the published one for image classifiers.
        force: replace a file that is there.

    Raises:
        RecipeError: there is no such preset, the file is there already and `force` is not set, or the folder cannot be
            written to.
    """
    if preset is not None and preset not in preset_names():
        raise RecipeError(f"no preset named '{preset}'{nearest(preset, preset_names())}")
    if path.exists() and not force:
        raise RecipeError(f"{path}: is there already; choose another name, or --force to overwrite it")
    text = (resources.files("edgerazor.recipes") / "starter.yaml").read_text(encoding="utf-8")
    text = text.replace(f"name_or_path: {MODEL}  ", f"name_or_path: {_scalar(model)}  ")
    content = _config(model)
    pictures = any("ForImageClassification" in str(name) for name in content.get("architectures") or ())
    if pictures:
        text = _of_pictures(text)
    chosen = preset or (PRESET_OF_PICTURES if pictures else PRESET)
    text = text.replace(f"\npreset: {PRESET}\n", f"\npreset: {chosen}\n")
    text = text.replace(f"sequence_length: {LENGTH} ", f"sequence_length: {min(LENGTH, _positions(content))} ")
    try:
        write_text(path, text)
    except OSError as error:
        raise RecipeError(f"{path}: cannot be written: {error.strerror or error}") from error


def _config(model: str) -> dict[str, Any]:
    """config.json of a model on this machine; empty where there is none, or `check` says what is wrong with it."""
    config = local_config(model)
    try:
        content = json.loads(config.read_text(encoding="utf-8")) if config else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _positions(content: Mapping[str, Any]) -> int:
    """Positions of a model; `LENGTH` where its configuration does not say."""
    positions = content.get("max_position_embeddings")
    return positions if isinstance(positions, int) and positions > 0 else LENGTH


def _of_pictures(text: str) -> str:
    """The starter of an image classifier: pictures as data, and nothing that is said of language models."""
    of_texts = ("# What edgerazor-", "# distillation:")
    blocks = [block for block in text.split("\n\n") if not block.startswith(of_texts)]
    joined = "\n\n".join(_PICTURES if block.startswith("data:") else block for block in blocks)
    begin, end = joined.index(_START), joined.index("\n\n", joined.index(_START))
    return (joined[:begin] + joined[end:]).replace(_KV_CACHE, "")


def _scalar(text: str) -> str:
    """Text as YAML writes it on one line, in quotes where it needs them."""
    return yaml.safe_dump([text], default_flow_style=True, width=10**6).strip()[1:-1]
