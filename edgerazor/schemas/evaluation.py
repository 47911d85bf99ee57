"""The `evaluation` section: when the student is measured on held-out data, and by what."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgerazor.schemas.base import Schema

Metric = Literal["loss", "bits_per_byte", "kl_teacher", "top1_agreement"]


class EvaluationSection(Schema):
    """Held-out figures of the quantized student."""

    title: ClassVar[str] = "evaluation"

    every_steps: Annotated[int | None, Field(ge=1, description="null: only at the end.")] = None
    batches: Annotated[int | None, Field(ge=1, description="At most this many batches; null: all held-out data.")] = (
        None
    )
    batch_size: Annotated[int, Field(ge=1)] = 8
    metrics: tuple[Metric, ...] = ("loss", "bits_per_byte", "kl_teacher", "top1_agreement")
