"""Exports: a packed checkpoint through any exporter, ours or a plugin's, checked before and verified after."""

from pathlib import Path
from typing import Any

from rich.console import Console

from edgerazor.core.contracts import ExportReport
from edgerazor.core.registry import Registry
from edgerazor.errors import ExportError
from edgerazor.pipeline.checkpoint import open_checkpoint
from edgerazor.schemas.recipe import Recipe


def build_exporters(recipe: Recipe, *, registry: Registry) -> list[Any]:
    """Exporters of the recipe, imported now, so that a missing extra is known before training."""
    return [registry.build(params) for params in recipe.export]


def export_checkpoint(checkpoint: Path, exporter: Any, *, console: Console) -> ExportReport:
    """Export one packed checkpoint to `exporter.params.path` and compare the file with it.

    Raises:
        ExportError: a tensor does not fit the format, or the file read back differs.
    """
    opened, path = open_checkpoint(checkpoint), Path(exporter.params.path)
    exporter.check(opened)
    report: ExportReport = exporter.export(opened, path)
    different = exporter.verify(path, opened).different
    if different:
        raise ExportError(f"{path}: {len(different)} tensors differ from the checkpoint, first {different[0]}")
    console.print(
        f"exported {path}: {report.bytes / 1e6:.1f} MB, {report.bits_per_weight:.3f} bits per weight, verified"
    )
    return report
