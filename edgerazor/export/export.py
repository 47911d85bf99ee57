"""Exports: a packed checkpoint through any exporter, ours or a plugin's, checked before and verified after."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgerazor.checkpoint import open_checkpoint
from edgerazor.checkpoint.file_check import FileCheck
from edgerazor.checkpoint.read import PackedCheckpoint
from edgerazor.core.claims import claimed
from edgerazor.core.contracts import ComparisonResult, Exporter, ExportResult, Progress
from edgerazor.core.registry import Registry
from edgerazor.errors import ExportError
from edgerazor.export.engine import try_engine
from edgerazor.inference.open_runtime import exporter_of
from edgerazor.schemas.components import unknown_component
from edgerazor.schemas.overrides import apply_overrides, parse_overrides
from edgerazor.schemas.recipe import Recipe, key_path


def build_exporters(recipe: Recipe, *, registry: Registry) -> list[Exporter]:
    """Exporters of the recipe, imported now, so that a missing extra is known before training."""
    return [registry.build(params) for params in recipe.export]


def export_checkpoint(
    checkpoint: Path, exporter: Exporter, *, registry: Registry, progress: Progress | None = None, where: str = ""
) -> ExportResult:
    """Export one packed checkpoint to `exporter.params.path`, once it was compared and run.

    What was written takes its place when every tensor equals the checkpoint's and its engine, where that is installed,
    has read a few tokens with it.

    Args:
        checkpoint: folder.
        exporter: built from its parameters.
        registry: loaded plugins.
        progress: called as `Exporter.progress`.
        where: put before each line of an error, such as `export[0]`.

    Raises:
        ExportError: a tensor does not fit the format, the file read back differs, or its engine cannot run it.
        CheckpointError: the checkpoint is damaged, or none of ours.
        OutputError: another process writes to the path.
    """
    opened, path = open_checkpoint(checkpoint, registry=registry), Path(exporter.params.path)
    FileCheck(opened.folder, opened.manifest).finish()
    exporter.progress = progress
    found: list[ComparisonResult] = []

    def inspect(written: Path) -> None:
        try:
            found.append(_compare_and_run(exporter, written, opened, registry))
        except ExportError as error:
            raise ExportError(str(error).replace(str(written), str(path))) from error
        if different := found[0].different:
            raise ExportError(f"{path}: {len(different)} tensors differ from the checkpoint, first {different[0]}")

    try:
        exporter.check_target(path)
        with claimed(path):
            exporter.check(opened)
            result = exporter.export(opened, path, inspect=inspect)
    except ExportError as error:
        if not where:
            raise
        raise ExportError("\n".join(f"{where}: {line}" for line in str(error).splitlines())) from error
    notes = [*result.details.get("notes", ()), *filter(None, [found[0].why_not_run])]
    return replace(result, details={**result.details, "notes": notes, "engine": found[0].engine})


def _compare_and_run(
    exporter: Exporter, path: Path, checkpoint: PackedCheckpoint, registry: Registry
) -> ComparisonResult:
    """Compare every tensor; if all are equal, let the engine run what is at `path`."""
    compared = exporter.verify(path, checkpoint)
    if compared.different:
        return compared
    engine, why_not = try_engine(exporter.params.name, path, registry)
    return replace(compared, engine=engine, why_not_run=why_not)


def export_to(
    checkpoint: str | Path,
    name: str,
    path: str | Path,
    settings: Sequence[str] = (),
    *,
    registry: Registry,
    progress: Progress | None = None,
) -> ExportResult:
    """Export a packed checkpoint with the exporter of that name.

    Args:
        checkpoint: folder.
        name: of the exporter, a plugin's too.
        path: what it writes.
        settings: `parameter=value` strings; values are YAML.
        registry: loaded plugins.
        progress: called as `Exporter.progress`.

    Raises:
        ExportError: there is no such exporter or parameter, a tensor does not fit, or the file read back differs.
        CheckpointError: the checkpoint is damaged, or none of ours.
    """
    exporter = build_exporter(name, path, settings, registry)
    return export_checkpoint(Path(checkpoint), exporter, registry=registry, progress=progress)


def list_exporters(registry: Registry) -> str:
    """A line for each installed exporter: its name, and which devices and programs it is for."""
    names = registry.names("exporter")
    width = max(map(len, names), default=0)
    declared = [registry.declared("exporter", name) for name in names]
    said = [getattr(params, "suits", "") or (params.__doc__ or "").strip().partition("\n")[0] for params in declared]
    return "\n".join(f"  {name:{width}}  {text}" for name, text in zip(names, said, strict=True))


def build_exporter(name: str, path: str | Path, settings: Sequence[str], registry: Registry) -> Exporter:
    """An exporter by its name; arguments and errors as for `export_to`."""
    if registry.declared("exporter", name) is None:
        raise ExportError(unknown_component(registry, "exporter", name))
    values, problems = apply_overrides({"name": name, "path": str(path)}, parse_overrides(settings))
    return _build(name, values, "--set", [f"--set {line}" for line in problems], registry)


def _build(name: str, values: Mapping[str, Any], source: str, problems: list[str], registry: Registry) -> Exporter:
    """The exporter with these parameters; `source`, which they are from, begins each line of an error."""
    declared = registry.declared("exporter", name)
    assert declared is not None
    try:
        params = declared.model_validate(values, context={"registry": registry})
    except ValidationError as error:
        faults = error.errors()
        problems += [": ".join(filter(None, [source, key_path(fault["loc"]), fault["msg"]])) for fault in faults]
    if problems:
        raise ExportError("\n".join(problems))
    exporter: Exporter = registry.build(params)
    return exporter


def verify_export(
    path: str | Path,
    checkpoint: str | Path,
    *,
    registry: Registry,
    name: str | None = None,
    progress: Progress | None = None,
) -> ComparisonResult:
    """Compare an exported file with the packed checkpoint that it was made of, and run it on a few tokens.

    Args:
        path: file or folder.
        checkpoint: folder.
        registry: loaded plugins.
        name: of the exporter; None finds it by the first bytes of the file, a file in the folder, or the suffix.
        progress: called as `Exporter.progress`.

    Raises:
        ExportError: the file is absent or damaged, no exporter knows it, or its engine cannot run it.
        CheckpointError: the checkpoint is damaged, or none of ours.
    """
    path = Path(path)
    if not path.exists():
        raise ExportError(f"{path}: there is no such file")
    exporter = build_exporter(name or exporter_of(path, registry), path, (), registry)
    opened = open_checkpoint(checkpoint, registry=registry)
    if settings := exporter.stated_settings(path):
        name = exporter.params.name
        exporter = _build(name, {**settings, "name": name, "path": str(path)}, f"{path}", [], registry)
    exporter.progress = progress
    return _compare_and_run(exporter, path, opened, registry)
