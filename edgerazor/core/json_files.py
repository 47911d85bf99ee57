"""JSON objects in the files of a model folder, and the names of files that they may hold."""

import json
from pathlib import Path
from typing import Any

from edgerazor.errors import CheckpointError


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or CheckpointError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: is missing") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def check_file_name(name: str, where: str) -> None:
    """Raise CheckpointError unless `name` stays inside the folder it was read in."""
    if {"", ".", ".."} & set(name.split("/")) or set(name) & {"\\", "\0", ":"}:
        raise CheckpointError(f"{where}: {name!r} is not the name of a file in this folder")
