"""What the laws of exporters share: an exporter, a checkpoint, a folder to export to, and checkpoints that differ."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from edgerazor.checkpoint import open_checkpoint
from edgerazor.core.packing import content_digest
from edgerazor.core.registry import Registry
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import CheckpointError
from edgerazor.schemas.components import ExporterParams

Value = Tensor | QuantizedTensor


class ExporterCase:
    """An exporter, a checkpoint, and an empty folder to export to."""

    def __init__(self, params: ExporterParams, checkpoint: Path, folder: Path, registry: Registry):
        self.params, self.checkpoint, self.folder, self.registry = params, checkpoint, folder, registry
        self.path = folder / Path(params.path).name
        self._sound: tuple[Path, Any] | None = None
        self.others: Mapping[str, bytes] = {}  # files of the other checkpoint

    def build(self) -> Any:
        """The exporter, new, as every command builds it."""
        return self.registry.build(self.params)

    def open(self) -> Any:
        """The checkpoint, opened anew."""
        return open_checkpoint(self.checkpoint, registry=self.registry)

    def other(self) -> Any:
        """A checkpoint like this one with other codes."""
        return ChangedCheckpoint(self.open(), with_other_codes, sealed=True)

    def start_with_an_export(self) -> Any:
        """Put an export of the checkpoint into the folder and give its report; it is made once and then copied."""
        if self._sound is None:
            kept = self.folder.with_name("kept")
            self._sound = kept, self.build().export(self.open(), self.path)
            shutil.copytree(self.folder, kept)
        else:
            shutil.copytree(self._sound[0], self.folder, dirs_exist_ok=True)
        return self._sound[1]

    def export_another(self) -> None:
        """Export the other checkpoint over what is in the folder."""
        self.build().export(self.other(), self.path)
        self.others = self.files()

    def files(self) -> Mapping[str, bytes]:
        """Everything in the folder, by relative name."""
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in found}


class ChangedCheckpoint:
    """A checkpoint that reads something else than it holds; whatever else is asked of it, it gives as it is.

    With `sealed` its digest is that of what it reads, as if those were the tensors that were packed.
    """

    def __init__(self, checkpoint: Any, read: Callable[[Any, str], Value], *, sealed: bool = False):
        self._checkpoint, self._read = checkpoint, read
        if sealed:
            values = ((name.removesuffix(".weight"), self.read(name)) for name in checkpoint.names())
            packed = [(name, value) for name, value in values if isinstance(value, QuantizedTensor)]
            self.digest = content_digest(sorted(packed, key=lambda pair: pair[0]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._checkpoint, name)

    def read(self, name: str) -> Value:
        """The tensor, changed."""
        return self._read(self._checkpoint, name)


def with_other_codes(checkpoint: Any, name: str) -> Value:
    """The tensor with its codes negated, which every row can hold."""
    value = checkpoint.read(name)
    if not isinstance(value, QuantizedTensor):
        return value
    negated = value.codes.where(value.codes < -value.widest_qmax().unsqueeze(-1), -value.codes)
    return QuantizedTensor(negated, value.scale, value.qmax, value.group_size)


def with_one_element_changed(checkpoint: Any, name: str) -> Value:
    """The tensor with its last code or number changed."""
    value = checkpoint.read(name)
    if isinstance(value, QuantizedTensor):
        codes = value.codes.clone()
        codes[-1, -1] = -1 if codes[-1, -1] == 0 else 0
        return QuantizedTensor(codes, value.scale, value.qmax, value.group_size)
    changed = value.clone()
    changed.view(-1)[-1] += 1
    return changed


def failing_at(failing: str) -> Callable[[Any, str], Value]:
    """A `read` that cannot read one of the tensors."""

    def read(checkpoint: Any, name: str) -> Value:
        if name == failing:
            raise CheckpointError(f"{name}: cannot be read")
        found: Value = checkpoint.read(name)
        return found

    return read
