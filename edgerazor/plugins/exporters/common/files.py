"""JSON files beside a model."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgerazor.errors import ExportError


def read_json(path: Path, *, optional: bool = False) -> dict[str, Any]:
    """Keys and values of a file; none if it is `optional` and absent.

    Raises:
        ExportError: it is absent or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if optional:
            return {}
        raise ExportError(f"{path}: there is no such file") from error
    except (OSError, ValueError) as error:
        raise ExportError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ExportError(f"{path}: expected keys with values")
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write keys and values, indented for people."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
