"""Several texts that one engine writes side by side."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Sequences(ABC):
    """Texts of one loaded model, numbered from 0, each with its own place in the cache.

    Attributes:
        count: how many there are.
        length: tokens that each of them holds at most.
    """

    count: int
    length: int

    @abstractmethod
    def begin(self, number: int, ids: Sequence[int]) -> Sequence[int]:
        """Give the place to another text; returns the tokens at its end that are still to be fed, at least one.

        What the place already holds of the beginning of `ids` may be kept.
        """

    @abstractmethod
    def feed(self, steps: Mapping[int, Sequence[int]]) -> "NDArray[np.float32]":
        """Read tokens of several texts after those before; logits `[len(steps), vocabulary]` of the last of each.

        Raises:
            ExportError: the engine fails, or a text becomes longer than `length`.
        """

    @abstractmethod
    def close(self) -> None:
        """Free the cache; the model stays loaded."""


def common_beginning(held: Sequence[int], ids: Sequence[int]) -> int:
    """How many tokens of `ids` need not be read again after those of `held`; the last one always is."""
    pairs = enumerate(zip(held, ids, strict=False))
    same = next((index for index, pair in pairs if pair[0] != pair[1]), min(len(held), len(ids)))
    return min(same, len(ids) - 1)
