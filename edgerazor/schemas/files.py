"""Reading a YAML or JSON file of keys and values, strictly: a key that is written twice is an error."""

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from edgerazor.errors import RecipeError
from edgerazor.schemas.messages import describe


def read_mapping(path: Path, *, expected: str) -> dict[str, Any]:
    """The content of a `.json` file, or of any other as YAML.

    Args:
        path: file to read, UTF-8.
        expected: what should be at its top, for the message where there is something else.

    Raises:
        RecipeError: the file cannot be read, is malformed, or does not hold keys with values; the line is named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: is not UTF-8 text: {error.reason} at byte {error.start}") from error
    try:
        if path.suffix == ".json":
            content = json.loads(text, object_pairs_hook=_unique_keys)
        else:
            content = yaml.load(text, Loader=_UniqueKeyLoader)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from None
    except RecursionError as error:
        raise RecipeError(f"{path}: is nested too deeply to be read") from error
    except json.JSONDecodeError as error:
        raise RecipeError(f"{path}: line {error.lineno}: not valid JSON: {error.msg}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise RecipeError(f"{path}: {where}not valid YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: expected {expected}, found {describe(content)}")
    return content


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML allows a key twice and keeps the last; a recipe must not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    None, None, f"{describe(key)} cannot be a key", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{key}' is written twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise RecipeError(f"key '{key}' is written twice")
        content[key] = value
    return content
