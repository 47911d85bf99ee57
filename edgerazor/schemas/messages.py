"""What pydantic finds, said for the person who writes the recipe: one line per fault, in the words of YAML."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "keys with values",
    "model_type": "keys with values",
    "model_attributes_type": "keys with values",
    "none_required": "null",
}
_BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the closest of `known`, else a list of what there is (empty if nothing)."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; expected one of: {', '.join(names)}" if names else ""


def expectation(line: Any) -> str | None:
    """What was expected by the check that made this pydantic error; None if only its own message can say."""
    kind, context = line["type"], line.get("ctx", {})
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        return f"{words} {context[key]:g}"
    if kind == "literal_error":
        return str(context["expected"])
    if kind == "too_short":
        return f"at least {context['min_length']} " + ("entry" if context["min_length"] == 1 else "entries")
    return None


def explain(line: Any) -> str:
    """The message of one pydantic error: what was expected, what was found."""
    expected, given = expectation(line), line.get("input")
    if expected is None:
        return str(line["msg"]).removeprefix("Value error, ")
    if line["type"] == "too_short":
        return f"expected {expected}, found {line['ctx']['actual_length']}"
    return f"expected {expected}, got {describe(given)}"


def describe(value: Any) -> str:
    """A value as YAML calls it: null, true, 'text', a list, keys with values."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, int, float)):
        return repr(value)
    if isinstance(value, dict):
        return "keys with values"
    return "a list" if isinstance(value, (list, tuple)) else type(value).__name__


def without_echoes(lines: Sequence[Any]) -> list[Any]:
    """Drop `too short` of a list whose entries failed: they are there, only wrong."""
    places = [tuple(line["loc"]) for line in lines]
    return [
        line
        for line, place in zip(lines, places, strict=True)
        if line["type"] != "too_short" or not any(other[: len(place)] == place and other != place for other in places)
    ]


def merge_alternatives(lines: Sequence[Any], depths: Mapping[str, int]) -> list[Any]:
    """One line for a value that may have several types; pydantic gives one per type, with the type in the key path.

    If an alternative failed inside (an entry of a list, a key), its faults alone are kept: that form was meant.

    Args:
        lines: the errors of one section.
        depths: for each field that has alternatives, how many parts of the key path come before the type.
    """
    groups: dict[tuple[Any, ...], list[Any]] = {}
    merged: list[Any] = []
    for line in lines:
        location = tuple(line["loc"])
        depth = depths.get(location[0], 0) if location else 0
        if depth and len(location) > depth:
            place = location[:depth]
            groups.setdefault(place, []).append({**line, "loc": place + location[depth + 1 :]})
        else:
            merged.append(line)
    for place, mine in groups.items():
        inner = [line for line in mine if len(line["loc"]) > len(place)]
        expected = dict.fromkeys(expectation(line) or line["msg"] for line in mine)
        message = f"expected {' or '.join(expected)}, got {describe(mine[0].get('input'))}"
        merged += inner or [{**mine[0], "type": "edgerazor", "msg": message}]
    return merged
