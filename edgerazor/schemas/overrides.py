"""`--set key.path=value`: replace one value of a raw recipe before it is checked."""

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from edgerazor.schemas.messages import describe

_PART = re.compile(r"([^.\[\]]+)|\[(-?\d+)\]")


@dataclass(frozen=True)
class Override:
    """One `key.path=value`, read.

    Attributes:
        text: as it was given.
        path: keys and indices; empty if it is malformed.
        value: what YAML makes of the value.
        fault: why it cannot be applied to anything.
    """

    text: str
    path: tuple[str | int, ...] = ()
    value: Any = None
    fault: str | None = None

    def writes(self, key: str) -> bool:
        """Whether it gives a value to a key of this name, by its path or somewhere inside its value."""
        return self.path[-1:] == (key,) or _holds(self.value, key)


def parse_overrides(texts: Iterable[str]) -> list[Override]:
    """Read every `key.path=value`."""
    return [_parse(text) for text in texts]


def apply_overrides(raw: Mapping[str, Any], overrides: Iterable[Override]) -> tuple[dict[str, Any], list[str]]:
    """Return a changed copy of `raw` and a line for every override that could not be applied."""
    result, problems = copy.deepcopy(dict(raw)), []
    for override in overrides:
        if override.fault is not None:
            problems.append(f"{override.text}: {override.fault}")
            continue
        try:
            _assign(result, override.path, override.value)
        except (LookupError, TypeError, ValueError) as error:
            problems.append(f"{override.text}: {error}")
    return result, problems


def _parse(text: str) -> Override:
    place, equals, value = text.partition("=")
    path = tuple(parse_path(place))
    if not equals or not path:
        return Override(text, path, fault="expected key.path=value, for example training.max_steps=100")
    try:
        return Override(text, path, yaml.safe_load(value))
    except (yaml.YAMLError, RecursionError):
        return Override(text, path, fault="the value is not valid YAML")


def _holds(value: Any, key: str) -> bool:
    if isinstance(value, dict):
        return key in value or any(_holds(inner, key) for inner in value.values())
    return isinstance(value, list) and any(_holds(inner, key) for inner in value)


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


def _assign(root: dict[str, Any], parts: Sequence[str | int], value: Any) -> None:
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
