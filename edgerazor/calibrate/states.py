"""Hidden states of all rows between two layers, in a file: memory holds those of one row."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgerazor.core.atomic import replaced


class RowStates:
    """Float32 `[1, T, hidden]` of every row.

    Args:
        path: of the file, which holds them one after another.
        lengths: tokens T of every row.
    """

    def __init__(self, path: Path, lengths: list[int]):
        self.path, self.lengths = path, lengths

    def __iter__(self) -> Iterator[Tensor]:
        width = self.path.stat().st_size // 4 // sum(self.lengths)
        with self.path.open("rb") as file:
            for length in self.lengths:
                values = np.fromfile(file, dtype=np.float32, count=length * width)
                yield torch.from_numpy(values).view(1, length, width)

    def write(self, rows: Iterable[Tensor]) -> None:
        """Take the states in the order of the rows; the file is there once all are written."""
        with replaced(self.path) as temporary, temporary.open("wb") as file:
            for states in rows:
                states.detach().float().contiguous().numpy().tofile(file)
