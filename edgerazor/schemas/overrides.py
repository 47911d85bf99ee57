"""`--set key.path=value`: replace one value of a raw recipe before it is checked."""

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from edgerazor.schemas.messages import describe

_PART = re.compile(r"([^.\[\]]+)|\[(-?\d+)\]")


def apply_overrides(raw: Mapping[str, Any], overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return a changed copy of `raw` and a line for every override that could not be applied."""
    result, problems = copy.deepcopy(dict(raw)), []
    for override in overrides:
        path, equals, text = override.partition("=")
        parts = parse_path(path)
        if not equals or not parts:
            problems.append(f"{override}: expected key.path=value, for example training.max_steps=100")
            continue
        try:
            _assign(result, parts, yaml.safe_load(text))
        except (LookupError, TypeError, ValueError) as error:
            problems.append(f"{override}: {error}")
        except yaml.YAMLError:
            problems.append(f"{override}: the value is not valid YAML")
    return result, problems


def parse_path(path: str) -> list[str | int]:
    """`a.b[1].c` as `["a", "b", 1, "c"]`; empty if it is malformed."""
    parts: list[str | int] = []
    position = 0
    while position < len(path):
        if path[position] == "." and parts:
            position += 1
        match = _PART.match(path, position)
        if match is None:
            return []
        parts.append(int(match[2]) if match[2] is not None else match[1])
        position = match.end()
    return parts


def _assign(root: dict[str, Any], parts: list[str | int], value: Any) -> None:
    if parts[0] == "preset" and isinstance(root.get("preset"), str) and len(parts) > 1:
        root["preset"] = {"name": root["preset"]}
    node: Any = root
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if isinstance(part, int):
            if not isinstance(node, list):
                raise TypeError(f"[{part}] indexes something that is not a list")
            if not -len(node) <= part < len(node):
                raise LookupError(f"[{part}] is out of range; the list has {len(node)} entries")
        elif not isinstance(node, dict):
            raise TypeError(f"'{part}' is looked up in {describe(node)}, which has no keys")
        elif not last and node.get(part) is None:
            node[part] = {}
        if last:
            node[part] = value
        else:
            node = node[part]
