"""What a key of a row may hold."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


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
INDEX = Kind("a whole number", lambda value: type(value) is int)
TEXTS = Kind("a list of two texts or more", _list_of(_is_text, 2))
NAMES = Kind("a list of one text or more", _list_of(_is_text, 1))
INDICES = Kind("a list of 0 or 1 for each choice, a 1 among them", _list_of(lambda value: value in (0, 1), 2))
KEYWORDS = Kind("a list of objects", _list_of(lambda value: isinstance(value, dict), 1))
