"""What an exporter implements, what it is handed, and what it gives back."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from edgerazor.core.atomic import file_above, replaced
from edgerazor.core.contracts.adapter import TensorRole
from edgerazor.core.contracts.facts import ModelFacts
from edgerazor.errors import ExportError
from edgerazor.schemas.components import ExporterParams

if TYPE_CHECKING:
    from torch import Tensor

    from edgerazor.core.tensor import QuantizedTensor

Progress = Callable[[str, int, int], None]
NamedTensors = Iterator[tuple[str, "Tensor | QuantizedTensor"]]


class Checkpoint(Protocol):
    """A packed folder, opened; tensors are read one by one."""

    folder: Path
    config: Mapping[str, Any]
    recipe: Mapping[str, Any]
    digest: str

    def names(self) -> Iterator[str]: ...

    def read(self, name: str) -> "Tensor | QuantizedTensor": ...

    def role(self, name: str) -> TensorRole: ...

    @property
    def tied(self) -> Mapping[str, str]:
        """`{module: module whose quantized weight it shares}`; the weight has the name of the latter."""

    @property
    def facts(self) -> ModelFacts: ...


@dataclass(kw_only=True)
class ExportPlan:
    """What an exporter knows of a checkpoint before it writes a byte; subclasses add what they need for writing.

    Attributes:
        problems: a line for everything that the format cannot hold, the tensor or key first; any refuses the export.
        weights: numbers in all tensors; `Exporter` counts them.
    """

    problems: list[str] = field(default_factory=list)
    weights: int = 0


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote.

    Attributes:
        path: file or folder.
        bytes: of all that is there.
        bits_per_weight: in it.
        details: plain data for reports; `types`, `notes`, `compression` and `engine` are shown by the command.
    """

    path: Path
    bytes: int
    bits_per_weight: float
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ComparisonResult:
    """What comparing an export with its checkpoint found.

    Attributes:
        tensors: how many were compared.
        different: names of those that differ.
        engine: name and version of the engine that then ran it on a few tokens; None if none did.
        why_not_run: the reason, where an engine could have.
    """

    tensors: int
    different: tuple[str, ...] = ()
    engine: str | None = None
    why_not_run: str | None = None


PlanT = TypeVar("PlanT", bound=ExportPlan)


class Exporter(ABC, Generic[PlanT]):
    """Writes packed checkpoints in another format without rounding.

    A subclass says what the format can hold (`plan`), writes it (`write`), and reads it back (`verify`). This class
    plans a checkpoint once however often it is asked, raises all problems at once, reports progress, and lets a written
    file or folder take its place only when it is whole.

    Attributes:
        kind: what its files are called in messages, such as "GGUF".
        files: names of files that a folder it wrote may hold, or patterns of names with `*`; only such a folder is
            replaced. Empty: any name.
        params: its parameters; they declare `suffixes`, `magic` or `marker` (a file inside a folder), by which
            `edgerazor verify` knows its files, and `runtime`, the import path of a `Runtime` that runs them.
        progress: called with the stage ("checking", "writing", ...), steps done and steps in all; None: nobody looks.
    """

    kind: ClassVar[str] = "exported"
    files: ClassVar[frozenset[str]] = frozenset()
    progress: Progress | None = None
    _planned: tuple[Checkpoint, PlanT] | None = None

    def __init__(self, params: ExporterParams):
        self.params: Any = params

    @abstractmethod
    def plan(self, checkpoint: Checkpoint, tensors: NamedTensors) -> PlanT:
        """Decide how everything is stored, and list in `problems` whatever cannot be.

        Args:
            checkpoint: for its configuration, recipe and roles.
            tensors: name and value of every tensor by module name, read one by one as it is iterated; afterwards the
                content is known to be what the checkpoint's digest was taken of.

        Raises:
            ExportError: nothing can be said of the rest, as of a model of an unknown kind.
        """

    @abstractmethod
    def write(self, checkpoint: Checkpoint, plan: PlanT, path: Path) -> None:
        """Make the file or folder at `path`, which is free; it is moved to its place afterwards."""

    @abstractmethod
    def verify(self, path: Path, checkpoint: Checkpoint) -> ComparisonResult:
        """Read what is at `path` by code that the writer does not share, and compare every tensor with the checkpoint.

        Raises:
            ExportError: it is damaged, or was written by something else.
        """

    def stated_settings(self, path: Path) -> Mapping[str, Any]:
        """Parameters other than the defaults that what is at `path` says it was written with; none of most formats.

        `edgerazor verify` is not told how a file was exported: it builds the exporter from these before it asks for
        `verify`. A format whose content depends on parameters writes them into its files.

        Raises:
            ExportError: it is damaged.
        """
        return {}

    def check(self, checkpoint: Checkpoint) -> None:
        """Raise ExportError with one line for everything that cannot be held exactly; nothing is written."""
        self.planned(checkpoint)

    def export(
        self, checkpoint: Checkpoint, path: Path, *, inspect: Callable[[Path], None] | None = None
    ) -> ExportResult:
        """Write the checkpoint to `path`, replacing an earlier export there.

        Args:
            checkpoint: what is exported.
            path: of the file or folder.
            inspect: called with what was written before it takes its place; what it raises calls the export off.

        Raises:
            ExportError: as `check`, `path` holds something else, or it cannot be written; nothing is left of it then,
                and what was at `path` is untouched.
        """
        plan, path = self.planned(checkpoint), Path(path)
        try:
            self.check_target(path)
            with replaced(path) as temporary:
                self.write(checkpoint, plan, temporary)
                if inspect is not None:
                    inspect(temporary)
        except OSError as error:
            raise ExportError(f"{path}: cannot be written: {error.strerror or error}") from error
        return self.describe(checkpoint, plan, path)

    def describe(self, checkpoint: Checkpoint, plan: PlanT, path: Path) -> ExportResult:
        """The result of an export that lies at `path`."""
        size = size_of(path)
        return ExportResult(path, size, 8 * size / max(plan.weights, 1))

    def planned(self, checkpoint: Checkpoint) -> PlanT:
        """The plan of a checkpoint, made at the first call.

        Raises:
            ExportError: the plan has problems, or the checkpoint is damaged.
        """
        if self._planned is None or self._planned[0] is not checkpoint:
            tensors = _CheckedTensors(checkpoint, self.show)
            plan = self.plan(checkpoint, tensors)
            for _ in tensors:  # a plan that stopped early has not seen the digest
                pass
            plan.weights = tensors.weights
            self._planned = checkpoint, plan
        plan = self._planned[1]
        if plan.problems:
            raise ExportError("\n".join(plan.problems))
        return plan

    def show(self, stage: str, done: int, total: int) -> None:
        """Tell whoever looks that `done` of `total` steps of a stage are finished."""
        if self.progress is not None:
            self.progress(stage, done, total)

    def check_target(self, path: Path) -> None:
        """Raise ExportError if what is at `path` was not written by this exporter, or nothing can be written there."""
        above, folder = file_above(path), bool(self.params.marker)
        if above is not None:
            raise ExportError(f"{above}: is a file; expected a folder")
        if folder and path.is_file():
            raise ExportError(f"{path}: is a file; expected a folder, or a name that is free")
        if not folder and path.is_dir():
            raise ExportError(f"{path}: is a folder; expected the name of a file such as model{_suffix(self.params)}")
        if path.is_dir():
            self._check_folder(path)
        elif path.exists() and path.stat().st_size and not _begins_with(path, self.params.magic):
            kind = f"is there already and is no {self.kind} file"
            raise ExportError(f"{path}: {kind}; choose another name, or remove it")

    def _check_folder(self, path: Path) -> None:
        present = {entry.name for entry in path.iterdir()}
        known = (name for name in present for pattern in self.files if fnmatchcase(name, pattern))
        foreign = sorted(present - set(known)) if self.files else []
        if foreign or (present and not self.params.marks(present)):
            shown = ", ".join((foreign or sorted(present))[:5])
            raise ExportError(f"{path}: holds what is no exported model ({shown}); choose another folder, or empty it")


class _CheckedTensors(NamedTensors):
    """Every tensor of a checkpoint, counted, and compared with its digest at the end."""

    def __init__(self, checkpoint: Checkpoint, show: Progress):
        self.weights = 0
        self._tensors = self._read(checkpoint, show)

    def __next__(self) -> "tuple[str, Tensor | QuantizedTensor]":
        return next(self._tensors)

    def _read(self, checkpoint: Checkpoint, show: Progress) -> NamedTensors:
        from edgerazor.core.packing import ContentDigest
        from edgerazor.core.tensor import QuantizedTensor

        names, digest = sorted(checkpoint.names(), key=_module), ContentDigest()
        for index, name in enumerate(names):
            value = checkpoint.read(name)
            if isinstance(value, QuantizedTensor):
                digest.update(_module(name), value)
                self.weights += value.codes.numel()
            else:
                self.weights += value.numel()
            yield name, value
            show("checking", index + 1, len(names))
        if digest.hexdigest() != checkpoint.digest:
            raise ExportError(
                f"{checkpoint.folder}: codes or scales are not those that content_sha256 was taken of: the checkpoint "
                f"is damaged; `edgerazor verify {checkpoint.folder}` says where"
            )


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _module(name: str) -> str:
    return name.removesuffix(".weight")


def _suffix(params: ExporterParams) -> str:
    return next(iter(params.suffixes), "")


def _begins_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic
