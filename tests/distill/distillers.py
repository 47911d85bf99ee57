"""Distillers from lists of losses."""

from typing import Any

from edgerazor.core.registry import Registry
from edgerazor.distill import Distiller


def distiller(
    registry: Registry, losses: list[dict[str, Any]], task_weight: float = 0.1, family: str = "qwen3"
) -> Distiller:
    """The losses of a recipe, built and composed for students of one family."""
    built = [registry.build(registry.params("loss", **loss)) for loss in losses]
    return Distiller(built, task_weight=task_weight, adapter=registry.adapter_for(family))
