"""The `distillation` section: the losses between teacher and student and the weight of the task."""

from typing import Annotated, ClassVar

from pydantic import Field

from edgerazor.schemas.base import Schema
from edgerazor.schemas.components import LossSlot


class DistillationSection(Schema):
    """total = task_weight * cross entropy + sum of weight * loss (METHOD 4.7)."""

    title: ClassVar[str] = "distillation"

    task_weight: Annotated[float, Field(ge=0)] = 0.1
    losses: Annotated[tuple[LossSlot, ...], Field(min_length=1)]
