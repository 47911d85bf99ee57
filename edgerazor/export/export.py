"""Exports: a packed checkpoint through any exporter, ours or a plugin's, checked before and verified after."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from edgerazor.checkpoint import open_checkpoint
from edgerazor.core.contracts import ComparisonResult, Exporter, ExportResult, Progress
from edgerazor.core.registry import Registry
from edgerazor.errors import ExportError
from edgerazor.inference.open_runtime import exporter_of
from edgerazor.schemas.components import unknown_component
from edgerazor.schemas.overrides import apply_overrides
from edgerazor.schemas.recipe import Recipe, key_path


def build_exporters(recipe: Recipe, *, registry: Registry) -> list[Exporter]:
    """Exporters of the recipe, imported now, so that a missing extra is known before training."""
    return [registry.build(params) for params in recipe.export]


def export_checkpoint(
    checkpoint: Path, exporter: Exporter, *, registry: Registry, progress: Progress | None = None, where: str = ""
) -> ExportResult:
    """Export one packed checkpoint to `exporter.params.path` and compare what was written with it.

    Args:
        checkpoint: folder.
        exporter: built from its parameters.
        registry: loaded plugins.
        progress: called as `Exporter.progress`.
        where: put before each line of an error, such as `export[0]`.

    Raises:
        ExportError: a tensor does not fit the format, or the file read back differs.
        CheckpointError: the checkpoint is damaged, or none of ours.
    """
    registry.register_models()
    opened, path = open_checkpoint(checkpoint, registry=registry), Path(exporter.params.path)
    exporter.progress = progress
    try:
        exporter.check(opened)
        result = exporter.export(opened, path)
        different = exporter.verify(path, opened).different
    except ExportError as error:
        if not where:
            raise
        raise ExportError("\n".join(f"{where}: {line}" for line in str(error).splitlines())) from error
    if different:
        raise ExportError(f"{path}: {len(different)} tensors differ from the checkpoint, first {different[0]}")
    return result


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


def build_exporter(name: str, path: str | Path, settings: Sequence[str], registry: Registry) -> Exporter:
    """An exporter by its name; arguments and errors as for `export_to`."""
    declared = registry.declared("exporter", name)
    if declared is None:
        raise ExportError(unknown_component(registry, "exporter", name))
    values, problems = apply_overrides({"name": name, "path": str(path)}, settings)
    problems = [f"--set {line}" for line in problems]
    try:
        params = declared.model_validate(values, context={"registry": registry})
    except ValidationError as error:
        faults = error.errors()
        problems += [": ".join(filter(None, ["--set", key_path(fault["loc"]), fault["msg"]])) for fault in faults]
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
    """Compare an exported file with the packed checkpoint that it was made of.

    Args:
        path: file or folder.
        checkpoint: folder.
        registry: loaded plugins.
        name: of the exporter; None finds it by the first bytes of the file, a file in the folder, or the suffix.
        progress: called as `Exporter.progress`.

    Raises:
        ExportError: the file is absent or damaged, or no exporter knows it.
        CheckpointError: the checkpoint is damaged, or none of ours.
    """
    path = Path(path)
    if not path.exists():
        raise ExportError(f"{path}: there is no such file")
    exporter = build_exporter(name or exporter_of(path, registry), path, (), registry)
    exporter.progress = progress
    registry.register_models()
    return exporter.verify(path, open_checkpoint(checkpoint, registry=registry))
