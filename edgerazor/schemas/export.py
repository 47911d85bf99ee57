"""The `export` section: files to write from the finished checkpoint."""

from edgerazor.schemas.components import ExporterSlot

ExportSection = tuple[ExporterSlot, ...]
