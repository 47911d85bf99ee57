"""What is done of a calibration, on the disk: a run that was killed goes on with the layer it was at."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from edgerazor.calibrate.states import RowStates
from edgerazor.core.atomic import remove_abandoned, replaced, write_text
from edgerazor.core.json_files import read_json
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.core.tensor_files import open_tensors
from edgerazor.errors import CheckpointError
from edgerazor.version import __version__

_MADE_FROM, _BEFORE, _PARTS = "made_from.json", "before.safetensors", ("codes", "scale", "qmax")


class Journal:
    """Codes of every layer that is done, and the hidden states behind the last one, rounded and 16-bit.

    Args:
        folder: of its own, beside the output; what another recipe, model or other rows left there is removed.
        rows: token ids `[1, T]`.
        made_from: whatever else decides the codes, as JSON can hold it.
    """

    def __init__(self, folder: Path, rows: Iterable[Tensor], made_from: Mapping[str, Any]):
        self.folder = folder
        self.rows = list(rows)
        self._lengths = [row.shape[1] for row in self.rows]
        digest = hashlib.sha256(b"".join(row.numpy().tobytes() for row in self.rows))
        content = {**made_from, "rows": digest.hexdigest(), "version": __version__, "torch": torch.__version__}
        told = json.loads(json.dumps(content))
        if not (folder / _MADE_FROM).is_file() or read_json(folder / _MADE_FROM) != told:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            write_text(folder / _MADE_FROM, json.dumps(told, indent=1) + "\n")
        remove_abandoned(folder)

    def states(self, layer: int) -> RowStates:
        """Hidden states in front of a layer, counted from 0, as the rounded layers give them."""
        return RowStates(self.folder / f"states-{layer:04d}.bin", self._lengths)

    def unrounded_states(self, layer: int) -> RowStates:
        """Likewise, as the layers of the 16-bit model give them."""
        return RowStates(self.folder / f"unrounded-{layer:04d}.bin", self._lengths)

    def states_ahead(self, layer: int) -> RowStates:
        """Likewise, of a first pass through all layers of the 16-bit model."""
        return RowStates(self.folder / f"ahead-{layer:04d}.bin", self._lengths)

    def inputs_file(self, place: int) -> Path:
        """For what one set of matrices is given in the layer at hand, while that is not done."""
        return self.folder / f"inputs-{place:04d}.bin"

    def outputs_file(self, place: int) -> Path:
        """For what one set of matrices gives in the layer at hand, while that is not done."""
        return self.folder / f"outputs-{place:04d}.bin"

    def keep(self, name: str, codes: QuantizedTensor) -> None:
        """Keep the codes of a matrix that are found before those of any layer."""
        _save(self.folder / _BEFORE, {name: codes})

    def kept(self, name: str) -> QuantizedTensor:
        """Codes that `keep` was given.

        Raises:
            CheckpointError: they cannot be read.
        """
        return self._read(self.folder / _BEFORE, name)

    @property
    def done(self) -> int | None:
        """Layers that are done; None where not even the states in front of the first are there."""
        count = 0
        while self._path(count).is_file():
            count += 1
        both = self.states(count), self.unrounded_states(count)
        return count if all(states.path.is_file() for states in both) else None

    def finish(self, layer: int, codes: Mapping[str, QuantizedTensor]) -> None:
        """Keep the codes of a layer, whose states are written; those in front of it are not needed any more."""
        _save(self._path(layer), codes)
        for states in (self.states(layer), self.unrounded_states(layer)):
            states.path.unlink()

    def codes(self, layer: int, name: str) -> QuantizedTensor:
        """Codes of a matrix of a layer that is done.

        Raises:
            CheckpointError: they cannot be read.
        """
        return self._read(self._path(layer), name)

    def _read(self, path: Path, name: str) -> QuantizedTensor:
        try:
            with open_tensors(path) as opened:
                codes, scale, qmax = (opened.get_tensor(f"{name}.{part}") for part in _PARTS)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path}: {name}: cannot be read: {error}; remove {self.folder}") from error
        return QuantizedTensor(codes, scale, qmax, codes.shape[-1] // scale.shape[-1])

    def remove(self) -> None:
        """Nothing of it is needed any more."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, layer: int) -> Path:
        return self.folder / f"codes-{layer:04d}.safetensors"


def _save(path: Path, codes: Mapping[str, QuantizedTensor]) -> None:
    tensors = {f"{name}.{part}": getattr(codes[name], part) for name in codes for part in _PARTS}
    with replaced(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
