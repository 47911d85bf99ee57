"""Exports: a packed checkpoint through any exporter, ours or a plugin's, checked before and verified after."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from edgerazor.checkpoint import open_checkpoint
from edgerazor.core.contracts import ExportReport, VerifyReport
from edgerazor.core.registry import Registry
from edgerazor.errors import ExportError
from edgerazor.export.progress import show_stages
from edgerazor.inference.open_runtime import exporter_of
from edgerazor.schemas.components import unknown_component
from edgerazor.schemas.overrides import apply_overrides
from edgerazor.schemas.recipe import Recipe, key_path


def build_exporters(recipe: Recipe, *, registry: Registry) -> list[Any]:
    """Exporters of the recipe, imported now, so that a missing extra is known before training."""
    return [registry.build(params) for params in recipe.export]


def export_checkpoint(
    checkpoint: Path, exporter: Any, *, console: Console, registry: Registry | None = None, where: str = ""
) -> ExportReport:
    """Export one packed checkpoint to `exporter.params.path` and compare the file with it.

    Args:
        checkpoint: folder.
        exporter: built from its parameters.
        console: where the report goes.
        registry: loaded plugins; None loads them.
        where: put before each line of an error, such as `export[0]`.

    Raises:
        ExportError: a tensor does not fit the format, or the file read back differs.
    """
    opened, path = open_checkpoint(checkpoint, registry=registry), Path(exporter.params.path)
    try:
        with show_stages(exporter):
            exporter.check(opened)
            report: ExportReport = exporter.export(opened, path)
            different = exporter.verify(path, opened).different
    except ExportError as error:
        if not where:
            raise
        raise ExportError("\n".join(f"{where}: {line}" for line in str(error).splitlines())) from error
    if different:
        raise ExportError(f"{path}: {len(different)} tensors differ from the checkpoint, first {different[0]}")
    _print_report(report, console)
    return report


def export_to(
    checkpoint: str | Path,
    name: str,
    path: str | Path,
    settings: Sequence[str] = (),
    registry: Registry | None = None,
    *,
    console: Console | None = None,
) -> ExportReport:
    """Export a packed checkpoint with the exporter of that name.

    Args:
        checkpoint: folder.
        name: of the exporter, a plugin's too.
        path: what it writes.
        settings: `parameter=value` strings; values are YAML.
        registry: loaded plugins; None loads them.
        console: where the report goes; None is standard output.

    Raises:
        ExportError: there is no such exporter or parameter, a tensor does not fit, or the file read back differs.
        CheckpointError: the checkpoint is damaged, or none of ours.
    """
    registry = registry or _plugins()
    exporter = build_exporter(name, path, settings, registry)
    return export_checkpoint(Path(checkpoint), exporter, console=console or Console(), registry=registry)


def build_exporter(name: str, path: str | Path, settings: Sequence[str], registry: Registry) -> Any:
    """An exporter by its name; arguments and errors as for `export_to`."""
    declared = registry.declared("exporter", name)
    if declared is None:
        raise ExportError(unknown_component(registry, "exporter", name))
    values, problems = apply_overrides({"name": name, "path": str(path)}, settings)
    problems = [f"--set {line}" for line in problems]
    try:
        params = declared.model_validate(values, context={"registry": registry})
    except ValidationError as error:
        problems += [": ".join(filter(None, ["--set", key_path(one["loc"]), one["msg"]])) for one in error.errors()]
    if problems:
        raise ExportError("\n".join(problems))
    return registry.build(params)


def verify_export(
    path: str | Path,
    checkpoint: str | Path,
    *,
    registry: Registry | None = None,
    name: str | None = None,
) -> VerifyReport:
    """Compare an exported file with the packed checkpoint that it was made of.

    Args:
        path: the file.
        checkpoint: folder.
        registry: loaded plugins; None loads them.
        name: of the exporter; None finds it by the first bytes of the file or by its suffix.

    Raises:
        ExportError: the file is absent or damaged, or no exporter knows it.
        CheckpointError: the checkpoint is damaged, or none of ours.
    """
    registry, path = registry or _plugins(), Path(path)
    if not path.exists():
        raise ExportError(f"{path}: there is no such file")
    exporter = build_exporter(name or exporter_of(path, registry), path, (), registry)
    with show_stages(exporter):
        report: VerifyReport = exporter.verify(path, open_checkpoint(checkpoint, registry=registry))
    return report


def _plugins() -> Registry:
    from edgerazor.core.discovery import load_plugins

    return load_plugins()


def _print_report(report: ExportReport, console: Console) -> None:
    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    size = f"{report.bytes / 1e6:.1f} MB, {report.bits_per_weight:.3f} bits per weight"
    compression = report.details.get("compression")
    ratio = f", {compression:.2f} times smaller than 16 bit" if compression else ""
    say(f"exported {report.path}: {size}{ratio}, verified")
    for name, row in report.details.get("types", {}).items():
        figures = f"{row['tensors']} tensors, {row['bytes'] / 1e6:.1f} MB, {row['bits_per_weight']:.4g} bits per weight"
        say(f"  {name}: {figures}{'; ' if row.get('backends') else ''}{row.get('backends', '')}")
    for note in report.details.get("notes", ()):
        say(f"  note: {note}")
