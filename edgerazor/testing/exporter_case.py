"""What the laws of exporters share: an exporter, a checkpoint, a folder to export to, and checkpoints that differ."""

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from edgerazor.checkpoint import open_checkpoint
from edgerazor.core.packing import content_digest
from edgerazor.core.registry import Registry
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import CheckpointError, ExportError
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

    def build_as_stated(self) -> Any:
        """The exporter with the parameters that the export states, as `edgerazor verify` builds it."""
        values = {**self.build().stated_settings(self.path), "name": self.params.name, "path": str(self.path)}
        return self.registry.build(type(self.params).model_validate(values, context={"registry": self.registry}))

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

    def pairs_of_tensors(self) -> Iterator[tuple[str, str]]:
        """The first and the last matrix of codes, and the first and the last of the other tensors."""
        checkpoint = self.open()
        names = list(checkpoint.names())
        quantized = [name for name in names if isinstance(checkpoint.read(name), QuantizedTensor)]
        plain = [name for name in names if name not in quantized]
        yield from ((group[0], group[-1]) for group in (quantized, plain) if len(group) > 1)

    def computing_tensors(self) -> Iterator[str]:
        """Names of tensors by which something is computed: integers, as of a batch norm, only count batches."""
        checkpoint = self.open()
        for name in checkpoint.names():
            value = checkpoint.read(name)
            if isinstance(value, QuantizedTensor) or value.is_floating_point():
                yield name

    def refusal(self, spoil: Callable[[Any, str], Value], names: Collection[str]) -> str:
        """What the exporter says of a checkpoint in which these tensors are spoilt; "" if it takes it."""

        def read(checkpoint: Any, name: str) -> Value:
            value: Value = spoil(checkpoint, name) if name in names else checkpoint.read(name)
            return value

        try:
            self.build().check(ChangedCheckpoint(self.open(), read, sealed=True))
        except ExportError as error:
            return str(error)
        return ""

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


class ReadingCheckpoint:
    """A checkpoint that counts what is read of it, and cannot read the tensor that `failing` names."""

    def __init__(self, checkpoint: Any):
        self._checkpoint, self.reads, self.failing = checkpoint, 0, ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._checkpoint, name)

    def read(self, name: str) -> Value:
        """The tensor as it is."""
        self.reads += 1
        if name == self.failing:
            raise CheckpointError(f"{name}: cannot be read")
        value: Value = self._checkpoint.read(name)
        return value


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


def with_infinite_values(checkpoint: Any, name: str) -> Value:
    """The tensor with an infinite number, or an infinite scale."""
    value = checkpoint.read(name)
    changed = value.scale.clone() if isinstance(value, QuantizedTensor) else value.clone()
    changed.view(-1)[0] = float("inf")
    if isinstance(value, QuantizedTensor):
        return QuantizedTensor(value.codes, changed, value.qmax, value.group_size)
    return changed


def with_integers(checkpoint: Any, name: str) -> Value:
    """The tensor as 64-bit integers, where it holds floats; a matrix of codes as it is."""
    value: Value = checkpoint.read(name)
    return value if isinstance(value, QuantizedTensor) else value.long()
