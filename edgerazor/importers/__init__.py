"""Models that others quantized, read into packed checkpoints without rounding anything again."""

from edgerazor.importers.imported import import_folder

__all__ = ["import_folder"]
