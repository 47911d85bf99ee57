"""The laws of exporters, held to a tiny packed checkpoint."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from edgerazor.core.discovery import load_plugins
from edgerazor.core.registry import Registry
from edgerazor.errors import EdgeRazorError, ExportError
from edgerazor.schemas.components import ExporterParams
from edgerazor.testing.exporter_case import ChangedCheckpoint, ExporterCase, failing_at, with_one_element_changed
from edgerazor.testing.laws import expect, holding, law_name
from edgerazor.testing.models import packed_example

_SPOTS = 8


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
        BrokenLawError: the first law that it breaks, with what was found.
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
    other = ChangedCheckpoint(case.open(), with_one_element_changed, sealed=True)
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
            case.build().export(ChangedCheckpoint(case.open(), failing_at(name)), case.path)
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
