"""What all schemas share: strict, frozen models whose errors name the nearest valid key."""

from types import UnionType
from typing import Any, ClassVar, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, ValidationInfo, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from edgerazor.schemas.messages import explain, merge_alternatives, nearest, without_echoes

__all__ = ["Schema", "nearest", "problem"]


def problem(message: str) -> PydanticCustomError:
    """An error of ours in pydantic's clothes, so that it keeps its place in the key path."""
    return PydanticCustomError("edgerazor", "{message}", {"message": message})


class Schema(BaseModel):
    """A section of the recipe: unknown keys are refused with a suggestion, values cannot be changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False)
    title: ClassVar[str] = ""

    @model_validator(mode="wrap")
    @classmethod
    def _name_the_nearest_key(cls, value: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        try:
            return handler(value)
        except ValidationError as error:
            lines = merge_alternatives(without_echoes(error.errors()), cls._depths())
            details = [cls._explain(line) for line in lines]
            raise ValidationError.from_exception_data(error.title, details) from None

    @classmethod
    def _explain(cls, line: Any) -> InitErrorDetails:
        location = tuple(line["loc"])
        if line["type"] == "extra_forbidden" and len(location) == 1:
            key, location = str(location[0]), ()
            message = f"{cls._describe()} has no '{key}'{nearest(key, cls.model_fields)}"
        elif line["type"] == "missing" and len(location) == 1:
            message, location = f"{cls._describe()} needs '{location[0]}'", ()
        else:
            message = line["msg"] if line["type"] == "edgerazor" else explain(line)
        return InitErrorDetails(type=problem(message), loc=location, input=line.get("input"))

    @classmethod
    def _describe(cls) -> str:
        return cls.title or cls.__name__

    @classmethod
    def _depths(cls) -> dict[str, int]:
        """Fields that take values of several types, null not counted: 1, or 2 if the entries of a list do."""
        depths = {}
        for name, field in cls.model_fields.items():
            if _alternatives(field.annotation):
                depths[name] = 1
            elif get_origin(field.annotation) is tuple and _alternatives(get_args(field.annotation)[0]):
                depths[name] = 2
        return depths


def _alternatives(annotation: Any) -> bool:
    if get_origin(annotation) not in (Union, UnionType):
        return False
    return sum(alternative is not type(None) for alternative in get_args(annotation)) > 1
