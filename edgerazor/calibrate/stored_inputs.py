"""Inputs of matrices in a file, row by row: the 16-bit layer is run once, while its matrices are rounded in turn."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from edgerazor.calibrate.inputs import Inputs


class StoredInputs:
    """`Inputs` of all rows, in their order and in float32; what shape they have is known to this object alone.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path):
        self._path = path
        self._shapes: list[list[torch.Size]] = []

    @contextmanager
    def written(self) -> Iterator[Callable[[Inputs], None]]:
        """For the block the file is written anew, with what is given."""
        self._shapes = []
        with self._path.open("wb") as file:

            def add(inputs: Inputs) -> None:
                parts = [inputs.rows] if inputs.residual is None else [inputs.rows, inputs.residual]
                for part in parts:
                    part.detach().float().contiguous().numpy().tofile(file)
                self._shapes.append([part.shape for part in parts])

            yield add

    def __iter__(self) -> Iterator[Inputs]:
        with self._path.open("rb") as file:
            for shapes in self._shapes:
                yield Inputs(*(_read(file, shape) for shape in shapes))

    def remove(self) -> None:
        """The file is not needed any more."""
        self._path.unlink()


def _read(file: BinaryIO, shape: torch.Size) -> Tensor:
    return torch.from_numpy(np.fromfile(file, dtype=np.float32, count=shape.numel())).view(shape)
