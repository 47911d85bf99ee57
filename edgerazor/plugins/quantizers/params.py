"""Parameters of the built-in quantizers (METHOD 1.3 and 2)."""

from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from edgerazor.schemas.base import problem
from edgerazor.schemas.components import QuantizerParams
from edgerazor.schemas.row_ranges import format_rows, parse_rows

ScaleDtype = Annotated[
    Literal["float16", "float16_bfloat16", "float32"],
    Field(description="float16_bfloat16: the float16 numbers that bfloat16 holds, too, exact in every engine."),
]
Placement = Literal[
    "every_nth_row", "variance_rows", "variance_groups", "first_groups", "first_columns", "strided_groups", "rows"
]


class IntParams(QuantizerParams):
    """Integers of `bits` bits, scaled by the largest magnitude of a group."""

    target: ClassVar[str] = "edgerazor.plugins.quantizers.integer:IntQuantizer"
    name: Literal["int"] = "int"
    bits: Annotated[int, Field(ge=2, le=8)]
    symmetric: Annotated[bool, Field(description="false: one more step on the negative side, still no zero point.")] = (
        True
    )
    scale: Annotated[
        Literal["absmax", "signed_absmax"],
        Field(
            description="signed_absmax: scales may be negative, so that the largest magnitude of a group has the "
            "outermost, negative code; with symmetric: false."
        ),
    ] = "absmax"
    scale_dtype: ScaleDtype = "float16"

    @model_validator(mode="after")
    def _one_side_longer(self) -> "IntParams":
        if self.scale == "signed_absmax" and self.symmetric:
            raise problem("scale signed_absmax needs symmetric: false: only that has the code -qmax-1")
        return self


class UnsignedIntParams(QuantizerParams):
    """Integers of `bits` bits for activations, without a sign in groups that have no negative number (after a ReLU)."""

    target: ClassVar[str] = "edgerazor.plugins.quantizers.unsigned:UnsignedIntQuantizer"
    name: Literal["unsigned_int"] = "unsigned_int"
    bits: Annotated[int, Field(ge=2, le=8)]
    scale_dtype: Annotated[Literal["float32"], Field(description="Scales of activations are never stored.")] = "float32"


class TernaryParams(QuantizerParams):
    """-1, 0 and 1 times a scale: the mean magnitude times `scale_multiplier`, or the largest magnitude."""

    target: ClassVar[str] = "edgerazor.plugins.quantizers.ternary:TernaryQuantizer"
    name: Literal["ternary"] = "ternary"
    scale: Literal["absmean", "absmax"] = "absmean"
    scale_multiplier: Annotated[float, Field(gt=0)] = 2.0
    scale_dtype: ScaleDtype = "float16"


class SQMPParams(QuantizerParams):
    """Integer rows among ternary rows: the share `high_ratio`, or those that `high_rows` lists (placement rows)."""

    # One of the two is needed, which a list of required keys cannot say.
    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["high_ratio"]}, {"required": ["high_rows"]}]})
    target: ClassVar[str] = "edgerazor.plugins.quantizers.sqmp:SQMPQuantizer"
    name: Literal["sqmp"] = "sqmp"
    high_ratio: Annotated[
        float | str | None, Field(description="A decimal such as 0.125 or a fraction such as '1/3'.")
    ] = None
    high_bits: Annotated[int, Field(ge=3, le=8)] = 4
    placement: Placement = "every_nth_row"
    high_rows: Annotated[
        str | None, Field(description="Rows of placement rows: numbers and ranges from 0, such as '0-3, 17, 40-63'.")
    ] = None
    scale_multiplier: Annotated[float, Field(gt=0)] = 2.0
    scale_dtype: ScaleDtype = "float16"

    def summary(self) -> str:
        """Name and what differs from the defaults; of listed rows how many there are."""
        if self.high_rows is None:
            return super().summary()
        count = len(parse_rows(self.high_rows))
        return f"{self.model_copy(update={'high_rows': None}).summary()} high_rows={count}"

    @field_validator("high_ratio", mode="before")
    @classmethod
    def _a_share(cls, value: Any) -> Any:
        if value is None:
            return None
        try:
            ratio = exact_ratio(value)
        except (ValueError, ZeroDivisionError):
            raise problem(f"{value!r} is not a ratio; write 0.125 or '1/8'") from None
        if not 0 <= ratio <= 1:
            raise problem(f"{value} is not between 0 and 1")
        return value if isinstance(value, str) else float(value)

    @field_validator("high_rows", mode="before", json_schema_input_type=str | int | None)
    @classmethod
    def _row_list(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            return value
        try:
            return format_rows(parse_rows(value))
        except ValueError as error:
            raise problem(str(error)) from None

    @model_validator(mode="after")
    def _usable_ratio(self) -> "SQMPParams":
        listed = self.placement == "rows"
        if listed != (self.high_rows is not None):
            raise problem("placement rows and high_rows go together; give both, or high_ratio with another placement")
        if listed == (self.high_ratio is not None):
            raise problem(
                "the rows are listed, so high_ratio says nothing" if listed else "quantizer 'sqmp' needs 'high_ratio'"
            )
        if self.high_ratio is None:
            return self
        ratio = exact_ratio(self.high_ratio)
        if self.placement == "every_nth_row" and ratio and ratio.numerator != 1:
            below, above = Fraction(1, int(1 / ratio) + 1), Fraction(1, int(1 / ratio))
            raise problem(
                f"high_ratio {self.high_ratio} is not 1/n, so no row spacing gives it; the nearest usable ratios are "
                f"'{above}' and '{below}'"
            )
        if self.placement == "strided_groups" and (100 * ratio).denominator != 1:
            raise problem(f"high_ratio {self.high_ratio} is not a whole number of hundredths, as strided_groups needs")
        return self


def exact_ratio(value: float | str) -> Fraction:
    """The decimal that was written, exactly: 0.1 is 1/10, not the nearest binary float."""
    return Fraction(str(value).replace(" ", ""))
