"""What tests of the exporter for MLX share."""

from pathlib import Path
from typing import Any

from edgerazor.core.registry import Registry


def make_mlx(registry: Registry, path: Path, **settings: Any) -> Any:
    """The exporter, built as a recipe builds it."""
    return registry.build(registry.params("exporter", "mlx", path=str(path), **settings))
