"""What an exporter implements, what it reads, and what it reports."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgerazor.core.contracts.adapter import TensorRole

if TYPE_CHECKING:
    from torch import Tensor

    from edgerazor.core.tensor import QuantizedTensor
    from edgerazor.schemas.components import ComponentParams


Progress = Callable[[str, int, int], None]


class Checkpoint(Protocol):
    """A packed folder, opened; tensors are read one by one."""

    folder: Path
    config: Mapping[str, Any]
    recipe: Mapping[str, Any]
    digest: str

    def names(self) -> Iterator[str]: ...

    def read(self, name: str) -> "Tensor | QuantizedTensor": ...

    def role(self, name: str) -> TensorRole: ...


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote."""

    path: Path
    bytes: int
    bits_per_weight: float
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class VerifyReport:
    """What a verification read back: tensors compared and the names of those that differ."""

    tensors: int
    different: tuple[str, ...] = ()


class Exporter(Protocol):
    """Writes a packed checkpoint to another format without rounding.

    It may have an attribute `progress: Progress | None`, which is set while there is somebody to look at it. Its
    parameters may declare `suffixes`, `magic` or `marker` (a file inside a folder), by which `edgerazor verify` knows
    its files, and `runtime`, the import path of a `Runtime` that is built from the path of an exported model.
    """

    params: "ComponentParams"

    def check(self, checkpoint: Checkpoint) -> None:
        """Raise ExportError that lists every tensor that does not fit, before a byte is written."""

    def export(self, checkpoint: Checkpoint, path: Path) -> ExportReport: ...

    def verify(self, path: Path, checkpoint: Checkpoint) -> VerifyReport: ...
