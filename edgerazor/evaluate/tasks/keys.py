"""What a key of a row may hold."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgerazor.errors import DataError
from edgerazor.schemas.messages import describe


@dataclass(frozen=True)
class Kind:
    """A kind of value.

    Attributes:
        expected: for messages.
        fits: whether a value is of it.
    """

    expected: str
    fits: Callable[[Any], bool]


Key = Kind | Mapping[str, Kind]
"""A kind, or an object whose keys have one each."""


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _list_of(fits: Callable[[Any], bool], least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) >= least and all(fits(member) for member in value)


TEXT = Kind("text", _is_text)
NUMBER = Kind("a whole number", lambda value: type(value) is int)
SECONDS = Kind("a number above 0", lambda value: type(value) in (int, float) and 0 < value < math.inf)
INDEX = Kind("a whole number", lambda value: type(value) is int)
TEXTS = Kind("a list of two texts or more", _list_of(_is_text, 2))
NAMES = Kind("a list of one text or more", _list_of(_is_text, 1))
INDICES = Kind("a list of 0 or 1 for each choice, a 1 among them", _list_of(lambda value: value in (0, 1), 2))
KEYWORDS = Kind("a list of objects", _list_of(lambda value: isinstance(value, dict), 1))


def check_keys(row: Mapping[str, Any], where: str, keys: Mapping[str, Key]) -> dict[str, Any]:
    """The values of keys; DataError, which begins with `where`, if one is missing or of another kind."""
    checked = {}
    for key, kind in keys.items():
        if key not in row:
            nearby = next((f"; did you mean '{name}'?" for name in row if name.lower() == key), None)
            raise DataError(f"{where}{key}: is missing{nearby or f'; it has: {_names(row)}'}")
        value = row[key]
        if isinstance(kind, Mapping):
            if not isinstance(value, dict):
                raise DataError(f"{where}{key}: expected an object with {', '.join(kind)}, got {describe(value)}")
            checked[key] = check_keys(value, f"{where}{key}.", kind)
        elif kind.fits(value):
            checked[key] = value
        else:
            raise DataError(f"{where}{key}: expected {kind.expected}, got {describe(value)}")
    return checked


def _names(row: Mapping[str, Any]) -> str:
    return ", ".join(row) or "nothing"
