"""Near duplicates: exact Jaccard similarity of short stretches of characters, found by an index, not by all pairs."""

import math
import re
import unicodedata
from collections import defaultdict
from zlib import crc32

_STRETCH = 5
_NO_WORD = re.compile(r"[\W_]+")


def normalize(text: str) -> str:
    """Words in small letters, one blank between them; no punctuation, and one form of every character (NFKC)."""
    return _NO_WORD.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def stretches(text: str) -> frozenset[str]:
    """All stretches of five characters of the normalized text; a shorter text is its own."""
    text = normalize(text)
    return frozenset(text[start : start + _STRETCH] for start in range(max(1, len(text) - _STRETCH + 1)))


class SimilarityIndex:
    """Texts that were kept, to find one that is like another.

    Two sets with a similarity of t share one of the first |A| - ceil(t |A|) + 1 elements of A in a fixed order (prefix
    filter: Chaudhuri et al. 2006, Bayardo et al. 2007), so only those are looked up, and nothing is missed.

    Args:
        threshold: similarity above 0 from which texts count as the same; equal normalized texts always do.
    """

    def __init__(self, threshold: float):
        self._threshold = threshold
        self._sets: list[tuple[frozenset[str], str]] = []
        self._numbers = defaultdict[str, list[int]](list)

    def add(self, text: str, name: str) -> None:
        """Keep a text under a name."""
        found = stretches(text)
        for stretch in self._prefix(found):
            self._numbers[stretch].append(len(self._sets))
        self._sets.append((found, name))

    def find(self, text: str) -> tuple[str, float] | None:
        """Name and similarity of the most similar text that was kept, if it is similar enough."""
        found = stretches(text)
        numbers = {number for stretch in self._prefix(found) for number in self._numbers.get(stretch, ())}
        best = max(((_jaccard(found, self._sets[number][0]), -number) for number in numbers), default=(0.0, 0))
        return (self._sets[-best[1]][1], best[0]) if numbers and best[0] >= self._threshold else None

    def _prefix(self, found: frozenset[str]) -> list[str]:
        # A digest gives an order that is the same in every process, and mixes frequent and rare stretches.
        ordered = sorted(found, key=lambda stretch: (crc32(stretch.encode()), stretch))
        return ordered[: len(found) - math.ceil(self._threshold * len(found) - 1e-9) + 1]


def _jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    common = len(first & second)
    return common / (len(first) + len(second) - common)
