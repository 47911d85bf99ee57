"""The laws of exporters, held to a tiny packed checkpoint."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from edgerazor.core.discovery import load_plugins
from edgerazor.core.registry import Registry
from edgerazor.errors import EdgeRazorError, ExportError
from edgerazor.schemas.components import ExporterParams
from edgerazor.testing.exporter_case import (
    ChangedCheckpoint,
    ExporterCase,
    ReadingCheckpoint,
    with_infinite_values,
    with_integers,
    with_one_element_changed,
)
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


def an_export_is_what_its_result_says(case: ExporterCase) -> None:
    result = case.start_with_an_export()
    expect(Path(result.path) == case.path, f"the result names {result.path}, not {case.path}")
    expect(case.path.exists(), f"there is no {case.path.name}")
    others = sorted(path.name for path in case.folder.iterdir() if path != case.path)
    expect(not others, f"it leaves {', '.join(others)} behind, beside {case.path.name}")
    size = sum(len(content) for content in case.files().values())
    expect(result.bytes == size, f"the result says {result.bytes} bytes, there are {size}")
    expect(result.bits_per_weight > 0, f"the result says {result.bits_per_weight} bits per weight")


def its_files_are_known_again(case: ExporterCase) -> None:
    case.start_with_an_export()
    declared = type(case.params)
    if declared.magic:
        start = case.path.read_bytes()[: len(declared.magic)]
        expect(start == declared.magic, f"the file starts with {start!r}, magic is {declared.magic!r}")
    if declared.marker:
        named = " or ".join((declared.marker, *declared.other_markers))
        present = [entry.name for entry in case.path.iterdir()]
        expect(declared.marks(present), f"the folder holds no {named}, which marker names")
    if declared.suffixes:
        expect(case.path.suffix in declared.suffixes, f"{case.path.name} has none of the suffixes {declared.suffixes}")


def an_export_equals_its_checkpoint(case: ExporterCase) -> None:
    case.start_with_an_export()
    result = case.build().verify(case.path, case.open())
    expect(not result.different, f"verify finds differences in a sound export: {', '.join(result.different[:5])}")
    expect(result.tensors > 0, "verify compared no tensor")
    result = case.build_as_stated().verify(case.path, case.open())
    shown = ", ".join(result.different[:5])
    expect(not result.different, f"built from what stated_settings says, verify finds differences: {shown}")


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
    missed = sorted(set(case.computing_tensors()) - set(found))
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
    _fail_to_export(case, names[-1], case.path)
    _fail_to_export(case, names[-1], case.folder / "above" / case.path.name, planned=True)
    case.start_with_an_export()
    _fail_to_export(case, names[len(names) // 2], case.path)


def _fail_to_export(case: ExporterCase, name: str, path: Path, *, planned: bool = False) -> None:
    """Export a checkpoint of which one tensor cannot be read, or, once it is `planned`, cannot be read again."""
    before, entries = case.files(), sorted(case.folder.iterdir())
    exporter, checkpoint = case.build(), ReadingCheckpoint(case.open())
    if planned:
        exporter.check(checkpoint)
    checkpoint.failing = name
    try:
        exporter.export(checkpoint, path)
    except EdgeRazorError:
        pass
    else:
        raise AssertionError(f"{name} could not be read, and export raises nothing")
    left = [entry.name for entry in sorted(case.folder.iterdir()) if entry not in entries]
    expect(not left, f"{name} could not be read, and export leaves {', '.join(left)} behind")
    expect(case.files() == before, f"{name} could not be read, and export changed what an earlier one wrote")


def a_checkpoint_is_planned_once(case: ExporterCase) -> None:
    exporter, checkpoint = case.build(), ReadingCheckpoint(case.open())
    exporter.check(checkpoint)
    first = checkpoint.reads
    exporter.check(checkpoint)
    again = checkpoint.reads - first
    expect(not again, f"{first} tensors are read to check a checkpoint, and {again} to check it again")


def a_refusal_names_everything_that_does_not_fit(case: ExporterCase) -> None:
    """Where two tensors would be refused one by one, a checkpoint of both is refused for both."""
    for spoil in (with_infinite_values, with_integers):
        for pair in case.pairs_of_tensors():
            alone = [case.refusal(spoil, {name}) for name in pair]
            if not all(alone):
                continue  # the format holds such values
            both = case.refusal(spoil, set(pair))
            missed = [name for name in pair if name.removesuffix(".weight") not in both]
            expect(
                not missed, f"{' and '.join(pair)} do not fit, and the error does not name {', '.join(missed)}: {both}"
            )


def progress_goes_forward(case: ExporterCase) -> None:
    exporter, checkpoint, calls = case.build(), case.open(), list[tuple[str, int, int]]()
    exporter.progress = lambda stage, done, total: calls.append((stage, done, total))
    exporter.check(checkpoint)
    exporter.export(checkpoint, case.path)
    exporter.verify(case.path, checkpoint)
    expect(calls, "progress is never called")
    last: dict[str, tuple[int, int]] = {}
    for stage, done, total in calls:
        before, same = last.get(stage, (0, total))
        expect(before <= done <= total, f"{stage}: {done} of {total} steps are done after {before} were")
        expect(total == same, f"{stage}: has {total} steps, and had {same} before")
        last[stage] = done, total
    for stage, (done, total) in last.items():
        expect(done == total, f"{stage}: ends with {done} of {total} steps done")


LAWS = (
    a_check_writes_nothing,
    an_export_is_what_its_result_says,
    its_files_are_known_again,
    an_export_equals_its_checkpoint,
    exporting_again_replaces_what_was_there,
    verify_names_every_tensor_that_differs,
    verify_finds_a_flipped_byte,
    a_failed_export_leaves_everything_as_it_was,
    a_checkpoint_is_planned_once,
    a_refusal_names_everything_that_does_not_fit,
    progress_goes_forward,
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
