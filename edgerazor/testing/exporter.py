"""The laws of exporters, held to a tiny packed checkpoint."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from edgerazor.core.manager import load_plugins
from edgerazor.core.packing import content_digest
from edgerazor.core.registry import Registry
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import CheckpointError, EdgeRazorError, ExportError
from edgerazor.pipeline.checkpoint import open_checkpoint
from edgerazor.schemas.components import ExporterParams
from edgerazor.testing.laws import expect, holding, law_name
from edgerazor.testing.models import packed_example

_SPOTS = 8
Read = Callable[[Any, str], Tensor | QuantizedTensor]


def check_exporter(
    params: ExporterParams, *, checkpoint: str | Path | None = None, registry: Registry | None = None
) -> None:
    """Hold an exporter to the laws of its contract: export a tiny checkpoint, verify it, damage it, fail on the way.

    Args:
        params: its parameters; of `path` the last part is used, in temporary folders.
        checkpoint: a small packed checkpoint that the format can hold; None is a Qwen3 of two layers with int4 and
            ternary rows in its matrices.
        registry: builds it; None loads the installed plugins.

    Raises:
        LawBroken: the first law that it breaks, with what was found.
        PluginError: it cannot be built.
    """
    registry = registry or load_plugins()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(checkpoint) if checkpoint else packed_example(Path(temporary), registry)
        case = ExporterCase(params, folder, Path(temporary) / "exports", registry)
        for law in LAWS:
            shutil.rmtree(case.folder, ignore_errors=True)
            case.folder.mkdir()
            with holding(law_name(law), params.name):
                law(case)


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
        return ChangedCheckpoint(self.open(), _with_other_codes, sealed=True)

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

    def __init__(self, checkpoint: Any, read: Read, *, sealed: bool = False):
        self._checkpoint, self._read = checkpoint, read
        if sealed:
            values = ((name.removesuffix(".weight"), self.read(name)) for name in checkpoint.names())
            packed = [(name, value) for name, value in values if isinstance(value, QuantizedTensor)]
            self.digest = content_digest(sorted(packed, key=lambda pair: pair[0]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._checkpoint, name)

    def read(self, name: str) -> Tensor | QuantizedTensor:
        """The tensor, changed."""
        return self._read(self._checkpoint, name)


def a_check_writes_nothing(case: ExporterCase) -> None:
    before = {path: path.stat().st_mtime_ns for path in case.checkpoint.rglob("*")}
    case.build().check(case.open())
    expect(not list(case.folder.iterdir()), f"it writes {', '.join(path.name for path in case.folder.iterdir())}")
    after = {path: path.stat().st_mtime_ns for path in case.checkpoint.rglob("*")}
    expect(before == after, "it changes the folder of the checkpoint")


def an_export_is_what_its_report_says(case: ExporterCase) -> None:
    report = case.start_with_an_export()
    expect(Path(report.path) == case.path, f"the report names {report.path}, not {case.path}")
    expect(case.path.exists(), f"there is no {case.path.name}")
    others = sorted(path.name for path in case.folder.iterdir() if path != case.path)
    expect(not others, f"it leaves {', '.join(others)} behind, beside {case.path.name}")
    size = sum(len(content) for content in case.files().values())
    expect(report.bytes == size, f"the report says {report.bytes} bytes, there are {size}")
    expect(report.bits_per_weight > 0, f"the report says {report.bits_per_weight} bits per weight")


def its_files_are_known_again(case: ExporterCase) -> None:
    case.start_with_an_export()
    declared = type(case.params)
    if declared.magic:
        start = case.path.read_bytes()[: len(declared.magic)]
        expect(start == declared.magic, f"the file starts with {start!r}, magic is {declared.magic!r}")
    if declared.marker:
        expect((case.path / declared.marker).is_file(), f"the folder holds no {declared.marker}, which marker names")
    if declared.suffixes:
        expect(case.path.suffix in declared.suffixes, f"{case.path.name} has none of the suffixes {declared.suffixes}")


def an_export_equals_its_checkpoint(case: ExporterCase) -> None:
    case.start_with_an_export()
    report = case.build().verify(case.path, case.open())
    expect(not report.different, f"verify finds differences in a sound export: {', '.join(report.different[:5])}")
    expect(report.tensors > 0, "verify compared no tensor")


def exporting_again_replaces_what_was_there(case: ExporterCase) -> None:
    case.start_with_an_export()
    first = case.files().keys()
    case.export_another()
    expect(
        case.files().keys() == first, f"a second export leaves {sorted(case.files())}, the first left {sorted(first)}"
    )
    different = case.build().verify(case.path, case.other()).different
    expect(not different, f"after a second export verify finds differences: {', '.join(different[:5])}")


def verify_names_every_tensor_that_differs(case: ExporterCase) -> None:
    case.start_with_an_export()
    other = ChangedCheckpoint(case.open(), _with_one_element_changed, sealed=True)
    found = case.build().verify(case.path, other).different
    missed = sorted(set(case.open().names()) - set(found))
    expect(not missed, f"one element of every tensor differs, and verify does not name {', '.join(missed[:5])}")


def verify_finds_a_flipped_byte(case: ExporterCase) -> None:
    case.start_with_an_export()
    sound = case.files()
    for name, spot in _bytes_of_weights(sound, case.others):
        damaged = bytearray(sound[name])
        damaged[spot] ^= 0x55
        (case.folder / name).write_bytes(damaged)
        try:
            found = bool(case.build().verify(case.path, case.open()).different)
        except ExportError:
            found = True
        finally:
            (case.folder / name).write_bytes(sound[name])
        where = f"byte {spot} of {len(damaged)} in {name}"
        expect(found, f"{where} was flipped, and verify finds the export equal to the checkpoint")


def a_failed_export_leaves_everything_as_it_was(case: ExporterCase) -> None:
    names = list(case.open().names())
    for name, earlier in ((names[-1], False), (names[len(names) // 2], True)):
        if earlier:
            case.start_with_an_export()
        before, entries = case.files(), sorted(case.folder.iterdir())
        try:
            case.build().export(ChangedCheckpoint(case.open(), _failing_at(name)), case.path)
        except EdgeRazorError:
            pass
        else:
            raise AssertionError(f"{name} could not be read, and export raises nothing")
        left = [path.name for path in sorted(case.folder.iterdir()) if path not in entries]
        expect(not left, f"{name} could not be read, and export leaves {', '.join(left)} behind")
        expect(case.files() == before, f"{name} could not be read, and export changed what an earlier one wrote")


LAWS = (
    a_check_writes_nothing,
    an_export_is_what_its_report_says,
    its_files_are_known_again,
    an_export_equals_its_checkpoint,
    exporting_again_replaces_what_was_there,
    verify_names_every_tensor_that_differs,
    verify_finds_a_flipped_byte,
    a_failed_export_leaves_everything_as_it_was,
)


def _bytes_of_weights(sound: Mapping[str, bytes], other: Mapping[str, bytes]) -> list[tuple[str, int]]:
    """Places, spread over the files, where exports of two checkpoints with other codes differ.

    In a compressed file there are no such places; there any byte must do.
    """
    places: list[tuple[str, int]] = []
    for name, content in sorted(sound.items()):
        if len(content) == len(other[name]):
            places += [(name, index) for index, byte in enumerate(content) if byte != other[name][index]]
        else:
            places += [(name, index) for index in range(len(content))]
    expect(places, "exports of two checkpoints with other codes do not differ")
    return [places[len(places) * (2 * index + 1) // (2 * _SPOTS)] for index in range(_SPOTS)]


def _with_other_codes(checkpoint: Any, name: str) -> Tensor | QuantizedTensor:
    value = checkpoint.read(name)
    if not isinstance(value, QuantizedTensor):
        return value
    negated = value.codes.where(value.codes < -value.widest_qmax().unsqueeze(-1), -value.codes)
    return QuantizedTensor(negated, value.scale, value.qmax, value.group_size)


def _with_one_element_changed(checkpoint: Any, name: str) -> Tensor | QuantizedTensor:
    value = checkpoint.read(name)
    if isinstance(value, QuantizedTensor):
        codes = value.codes.clone()
        codes[-1, -1] = -1 if codes[-1, -1] == 0 else 0
        return QuantizedTensor(codes, value.scale, value.qmax, value.group_size)
    changed = value.clone()
    changed.view(-1)[-1] += 1
    return changed


def _failing_at(failing: str) -> Read:
    def read(checkpoint: Any, name: str) -> Tensor | QuantizedTensor:
        if name == failing:
            raise CheckpointError(f"{name}: cannot be read")
        found: Tensor | QuantizedTensor = checkpoint.read(name)
        return found

    return read
