"""Packed tensors from their files into a model, past the loader of transformers, which has work of its own for each.

That loader does not see them: they are in the model only afterwards, and their names in the files are to be ignored.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from edgerazor.checkpoint.read import check_header
from edgerazor.core.layers.packed import PackedWeight
from edgerazor.core.packing import STORAGES
from edgerazor.core.tensor_files import open_tensors, read_headers
from edgerazor.errors import CheckpointError

# What transformers is to ignore where it does not load packed tensors.
PACKED_NAME = rf"\.weight_(?:{'|'.join((*STORAGES, 'scale', 'rows'))})$"


class PackedFiles:
    """The safetensors files of a packed model.

    Args:
        files: all of them.

    Raises:
        CheckpointError: one of them cannot be read, or a tensor is in two of them.
    """

    def __init__(self, files: Iterable[str | Path]):
        self._files = [Path(file) for file in files]
        self._headers = read_headers(self._files)

    def check(self, model: Any, packed: Mapping[str, PackedWeight]) -> None:
        """Compare the headers with the tensors that a model needs, before any is loaded.

        transformers would only warn about a missing tensor and go on with random numbers.

        Args:
            model: with packed modules in it.
            packed: these modules, by full name.

        Raises:
            CheckpointError: tensors are missing, or packed ones have another shape or dtype, or belong to no module;
                all are named.
        """
        expected = {
            f"{name}.{suffix}": kind for name, module in packed.items() for suffix, kind in module.shapes.items()
        }
        problems = [
            line for name, kind in expected.items() for line in check_header(name, self._headers.get(name), *kind)
        ]
        others, tied = model.state_dict().keys() - expected.keys(), model.all_tied_weights_keys
        problems += [f"{name}: is missing" for name in sorted(others - self._headers.keys() - tied.keys())]
        stray = filter(re.compile(PACKED_NAME).search, self._headers.keys() - expected.keys() - others)
        problems += [f"{name}: belongs to no packed module of the model" for name in sorted(stray)]
        if problems:
            raise CheckpointError("\n".join(f"{self._files[0].parent}: {line}" for line in problems))

    def fill(self, packed: Mapping[str, PackedWeight], device: torch.device) -> None:
        """Give packed modules their tensors; on a CPU these are views of the files, which are mapped to memory."""
        opened = {file: open_tensors(file, device) for file in self._files}
        for name, module in packed.items():
            names = {suffix: f"{name}.{suffix}" for suffix in module.shapes}
            module.hold({suffix: opened[self._headers[full].file].get_tensor(full) for suffix, full in names.items()})
