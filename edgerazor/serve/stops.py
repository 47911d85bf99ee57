"""Texts that end an answer, found wherever the pieces are cut."""

from collections.abc import Iterable, Sequence


def held_back(text: str, markers: Iterable[str]) -> int:
    """How many characters at the end of `text` may be the beginning of a marker, whose rest is still to come."""
    longest = 0
    for marker in markers:
        for length in range(min(len(text), len(marker) - 1), longest, -1):
            if text.endswith(marker[:length]):
                longest = length
                break
    return longest


class StopStrings:
    """Gives text on until a stop string begins.

    Args:
        stops: none of them empty.

    Attributes:
        found: a stop string came; the text has ended in front of it.
    """

    def __init__(self, stops: Sequence[str]):
        self.found = False
        self._stops, self._pending = stops, ""

    def add(self, text: str) -> str:
        """What is certain to belong to the answer."""
        if self.found or not self._stops:
            return "" if self.found else text
        self._pending += text
        places = [(place + len(stop), place) for stop in self._stops if (place := self._pending.find(stop)) >= 0]
        if places:
            self.found = True
            _, start = min(places)  # the one that is whole first, as if the text had come letter by letter
            return self._pending[:start]
        return self._take(len(self._pending) - held_back(self._pending, self._stops))

    def finish(self) -> str:
        """What was held back, at the end of the text."""
        return "" if self.found else self._take(len(self._pending))

    def _take(self, count: int) -> str:
        taken, self._pending = self._pending[:count], self._pending[count:]
        return taken
