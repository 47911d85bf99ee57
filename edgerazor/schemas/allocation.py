"""`training.allocation`: how the widths of the decoder's matrices are chosen before a run."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import yaml
from pydantic import Field, field_validator, model_validator

from edgerazor.schemas.base import Schema, problem

DEFAULT_CANDIDATES = ("ternary", "1/16", "1/8", "1/4", "1/2", "int4")
CANDIDATES = (
    "ternary, int4 (2 to 8 bits), 1/8 (that share of int rows among ternary ones) or a quantizer such as "
    "{name: int, bits: 2, symmetric: false}"
)
_INT, _RATIO = re.compile(r"int([2-8])"), re.compile(r"1/[1-9]\d*")


class AllocationSection(Schema):
    """Widths by sensitivity, as many nominal bits in all; `training.allocation: true` takes the defaults."""

    title: ClassVar[str] = "training.allocation"

    target_bits: Annotated[
        float | None, Field(gt=0, description="Nominal bits per weight; null: what the recipe's own rules come to.")
    ] = None
    candidates: Annotated[
        tuple[str, ...] | None,
        Field(
            min_length=1,
            description="ternary, int4 (2 to 8), 1/8 (that share of int rows), or a quantizer; null: "
            f"{', '.join(DEFAULT_CANDIDATES)}.",
        ),
    ] = None
    free: Annotated[bool, Field(description="q, k and v of a layer may differ, and gate and up.")] = False
    rows: Annotated[bool, Field(description="Single rows, in place of candidates.")] = False
    samples: Annotated[int, Field(ge=1, description="Rows of the training data that sensitivities are taken on.")] = 32

    @field_validator("candidates", mode="before", json_schema_input_type=tuple[str | dict[str, Any], ...] | None)
    @classmethod
    def _written_on_one_line(cls, value: Any) -> Any:
        """Quantizers as a recipe writes them become text, as the command takes it."""
        if not isinstance(value, (list, tuple)):
            return value
        return [_on_one_line(entry) if isinstance(entry, dict) else entry for entry in value]

    @field_validator("candidates")
    @classmethod
    def _known(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for text in value or ():
            if candidate_values(text) is None:
                raise problem(f"'{text}' is no candidate; expected {CANDIDATES}")
        return value

    @model_validator(mode="after")
    def _one_way(self) -> "AllocationSection":
        if self.rows and self.candidates:
            raise problem("rows: true chooses among ternary and int rows by itself; leave candidates out")
        return self


def _on_one_line(quantizer: dict[str, Any]) -> str:
    return yaml.safe_dump(quantizer, default_flow_style=True, sort_keys=False, width=1000).strip()


def candidate_values(text: str) -> Mapping[str, Any] | None:
    """What a candidate says of its quantizer, by the keys of a recipe; None if it is none."""
    text = text.strip()
    if text == "ternary":
        return {"name": "ternary"}
    if bits := _INT.fullmatch(text):
        return {"name": "int", "bits": int(bits[1])}
    if _RATIO.fullmatch(text):
        return {"name": "sqmp", "high_ratio": text, "placement": "every_nth_row"}
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    return values if isinstance(values, Mapping) and "name" in values else None
