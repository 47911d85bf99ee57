"""The `model` section: student, teacher and how to load them."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from edgerazor.schemas.base import Schema
from edgerazor.schemas.paths import local_path


class ModelSection(Schema):
    """Which checkpoint becomes the student, and which one teaches it."""

    title: ClassVar[str] = "model"

    name_or_path: Annotated[str, Field(description="Folder or hub name of the 16-bit model that becomes the student.")]
    teacher: Annotated[
        str | None, Field(description="Folder or hub name of the teacher; null: the student's own 16-bit checkpoint.")
    ] = None
    family: Annotated[
        str | None, Field(description="Model type that chooses the adapter; null: read from config.json.")
    ] = None
    revision: str | None = None
    tokenizer: Annotated[str | None, Field(description="Folder or hub name; null: beside the model.")] = None
    teacher_dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Field(description="auto: as stored on CUDA, float32 on a CPU."),
    ] = "auto"
    teacher_offload: Annotated[
        bool, Field(description="The teacher's weights wait in the computer's memory and visit the GPU as it runs.")
    ] = False

    @field_validator("name_or_path", "teacher", "tokenizer")
    @classmethod
    def _expand_home(cls, name: str | None) -> str | None:
        return str(local_path(name)) if name is not None and name.startswith("~") else name

    @property
    def teacher_name(self) -> str:
        """Folder or hub name of the teacher: `teacher`, or the student's own 16-bit checkpoint."""
        return self.teacher or self.name_or_path

    def revision_of(self, name: str) -> str | None:
        """The revision at which the model `name` is read; `revision` belongs to `name_or_path` alone."""
        return self.revision if name == self.name_or_path else None
