"""Parameters of the built-in exporters."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from edgerazor.schemas.base import Schema
from edgerazor.schemas.components import ExporterParams

BlockName = Literal["Q4_0", "Q4_K", "Q8_0", "TQ1_0", "TQ2_0", "Q2_K", "Q2_0"]
Profile = Literal["size", "speed_cpu", "compatible"]


class TypeRule(Schema):
    """Quantized matrices whose module name matches one of the globs are stored as this block type."""

    title: ClassVar[str] = "type rule"

    match: Annotated[tuple[str, ...], Field(min_length=1)]
    type: BlockName

    @field_validator("match", mode="before", json_schema_input_type=str | tuple[str, ...])
    @classmethod
    def _single_pattern(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class GGUFParams(ExporterParams):
    """One file for llama.cpp, with the codes and scales of the checkpoint in it unchanged."""

    target: ClassVar[str] = "edgerazor.plugins.exporters.gguf.exporter:GGUFExporter"
    suffixes: ClassVar[tuple[str, ...]] = (".gguf",)
    magic: ClassVar[bytes] = b"GGUF"
    runtime: ClassVar[str] = "edgerazor.plugins.exporters.gguf.runtime:LlamaCppRuntime"
    name: Literal["gguf"] = "gguf"
    profile: Annotated[
        Profile,
        Field(description="size: smallest file; speed_cpu: fastest on x86; compatible: types that every backend has."),
    ] = "compatible"
    mixed_rows: Annotated[
        Literal["widen", "error"],
        Field(description="Matrices of ternary and int4 rows: store all rows as int4, or refuse the checkpoint."),
    ] = "widen"
    types: Annotated[
        tuple[TypeRule, ...], Field(description="Block types by module name, before the profile; first match wins.")
    ] = ()
