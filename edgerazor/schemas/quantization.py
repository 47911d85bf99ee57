"""The `quantization` section: rules for weights, and the quantizers of activations and of keys and values."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from edgerazor.schemas.base import Schema
from edgerazor.schemas.components import ActivationSlot, QuantizerSlot


class WeightRule(Schema):
    """Modules whose full name matches one of the globs get this quantizer; null leaves them at 16 bit."""

    title: ClassVar[str] = "weight rule"

    match: Annotated[tuple[str, ...], Field(min_length=1)]
    quantizer: QuantizerSlot | None

    @field_validator("match", mode="before", json_schema_input_type=str | tuple[str, ...])
    @classmethod
    def _single_pattern(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class QuantizationSection(Schema):
    """The first rule that matches a module wins; a rule or glob that matches none is an error at plan time."""

    title: ClassVar[str] = "quantization"

    weights: Annotated[tuple[WeightRule, ...], Field(min_length=1)]
    activations: ActivationSlot | None = None
    kv_cache: QuantizerSlot | None = None
    fit: Annotated[
        tuple[Literal["weights", "activations", "kv_cache"], ...],
        Field(
            description="Whose group sizes are wishes: where one does not divide every row, a plan takes the largest "
            "of 256, 128, 64 and 32 that does."
        ),
    ] = ()

    @model_serializer(mode="wrap")
    def _nothing_to_fit_needs_no_key(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = write(self)
        return content if self.fit else {key: value for key, value in content.items() if key != "fit"}
