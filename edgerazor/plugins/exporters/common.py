"""What exporters have in common besides their base class: a file's origin, JSON beside a model, rows of a report."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edgerazor.core import json_files
from edgerazor.core.contracts import Checkpoint
from edgerazor.errors import CheckpointError, ExportError
from edgerazor.schemas.components import ExporterParams
from edgerazor.version import __version__

TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
CHAT_TEMPLATE, CHAT_TEMPLATES = "chat_template.jinja", "additional_chat_templates"
VERSION, DIGEST, RECIPE = "edgerazor.version", "edgerazor.content_sha256", "edgerazor.recipe"
SETTINGS = "edgerazor.export_settings"


def describe_origin(checkpoint: Checkpoint) -> dict[str, str]:
    """Version of the package, digest of the content, and the recipe as JSON; the keys are those of every format."""
    recipe = json.dumps(checkpoint.recipe, sort_keys=True)
    return {VERSION: __version__, DIGEST: checkpoint.digest, RECIPE: recipe}


def describe_settings(params: ExporterParams, names: Iterable[str]) -> dict[str, str]:
    """Those of the named parameters that are not as usual, as JSON under one key; no key if all are."""
    changed = params.model_dump(mode="json", include=set(names), exclude_defaults=True)
    return {SETTINGS: json.dumps(changed, sort_keys=True)} if changed else {}


def read_settings(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parameters in the metadata of a file; empty if it holds none.

    Raises:
        ExportError: they are not what `describe_settings` writes.
    """
    return _parsed(metadata, SETTINGS)


def read_recipe(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """The recipe in the metadata of a file; empty if it holds none.

    Raises:
        ExportError: it is not what `describe_origin` writes.
    """
    return _parsed(metadata, RECIPE)


def _parsed(metadata: Mapping[str, Any], key: str) -> dict[str, Any]:
    try:
        content = json.loads(metadata.get(key) or "{}")
    except (TypeError, ValueError, RecursionError) as error:
        raise ExportError(f"{key}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ExportError(f"{key}: expected keys with values")
    return content


def read_json(path: Path, *, optional: bool = False) -> dict[str, Any]:
    """Keys and values of a file; none if it is `optional` and absent.

    Raises:
        ExportError: it is absent or damaged.
    """
    if optional and not path.exists():
        return {}
    try:
        return json_files.read_json(path)
    except CheckpointError as error:
        raise ExportError(str(error)) from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write keys and values, indented for people."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def rows_by_type(stored: Iterable[tuple[str, int, int]]) -> dict[str, dict[str, Any]]:
    """Rows of a report: `{type: {tensors, weights, bytes, bits_per_weight}}`, in the order in which types occur.

    Args:
        stored: type, weights and bytes of each tensor.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, weights, size in stored:
        row = rows.setdefault(name, {"tensors": 0, "weights": 0, "bytes": 0})
        row["tensors"] += 1
        row["weights"] += weights
        row["bytes"] += size
    for row in rows.values():
        row["bits_per_weight"] = 8 * row["bytes"] / row["weights"]
    return rows
