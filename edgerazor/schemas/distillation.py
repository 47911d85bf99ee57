"""The `distillation` section: the losses between teacher and student and the weight of the task."""

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from edgerazor.schemas.base import Schema, problem
from edgerazor.schemas.components import LossSlot


class OnPolicySection(Schema):
    """Train on texts of the student's own too: a share of the batches keeps its prompts and gets new answers."""

    title: ClassVar[str] = "distillation.on_policy"

    share: Annotated[float, Field(gt=0, le=1, description="Of the batches.")] = 0.25
    max_new_tokens: Annotated[int, Field(ge=1)] = 128
    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    prompt_tokens: Annotated[
        int, Field(ge=1, description="A prompt is what stands before the first label, but at least this many tokens.")
    ] = 16


class DistillationSection(Schema):
    """total = task_weight * cross entropy + sum of weight * loss (METHOD 4.7)."""

    title: ClassVar[str] = "distillation"

    task_weight: Annotated[float, Field(ge=0)] = 0.1
    losses: Annotated[tuple[LossSlot, ...], Field(min_length=1)]
    teacher_cache: Annotated[
        str | None,
        Field(description="Folder of `edgerazor cache-teacher`; the teacher itself then does not run in training."),
    ] = None
    teacher_logits_mib: Annotated[
        float | None,
        Field(
            ge=0,
            description="The teacher's logits are kept between two passes if they fit, else computed twice; "
            "absent: 256 on a CPU, 2048 on CUDA.",
        ),
    ] = None
    on_policy: OnPolicySection | None = None

    @model_validator(mode="after")
    def _a_cache_knows_no_new_texts(self) -> "DistillationSection":
        if self.teacher_cache is not None and self.on_policy is not None:
            raise problem("teacher_cache holds the teacher on texts that exist; on_policy makes new ones; drop one")
        return self
