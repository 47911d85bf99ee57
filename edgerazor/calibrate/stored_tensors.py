"""Tensors of all rows in a file, so that a layer need not compute them again while its matrices are rounded in turn."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor


class StoredTensors:
    """Some tensors of every row, in the order of the rows; their shapes and dtypes are known to this object alone.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path):
        self._path = path
        self._kinds: list[list[tuple[torch.Size, torch.dtype]]] = []

    @contextmanager
    def written(self) -> Iterator[Callable[[Iterable[Tensor]], None]]:
        """For the block the file is written anew; what is yielded takes the tensors of the next row."""
        self._kinds = []
        with self._path.open("wb") as file:

            def add(tensors: Iterable[Tensor]) -> None:
                kinds = []
                for tensor in tensors:
                    tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tofile(file)
                    kinds.append((tensor.shape, tensor.dtype))
                self._kinds.append(kinds)

            yield add

    def __iter__(self) -> Iterator[list[Tensor]]:
        with self._path.open("rb") as file:
            for kinds in self._kinds:
                yield [_read(file, *kind) for kind in kinds]

    def remove(self) -> None:
        """The file is not needed any more."""
        self._path.unlink()


def _read(file: BinaryIO, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    values = np.fromfile(file, dtype=np.uint8, count=shape.numel() * dtype.itemsize)
    return torch.from_numpy(values).view(dtype).view(shape)
