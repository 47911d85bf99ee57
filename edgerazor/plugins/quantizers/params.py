"""Parameters of the built-in quantizers (METHOD 1.3 and 2)."""

from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from edgerazor.schemas.base import problem
from edgerazor.schemas.components import QuantizerParams

ScaleDtype = Literal["float16", "float32"]
Placement = Literal[
    "every_nth_row", "variance_rows", "variance_groups", "first_groups", "first_columns", "strided_groups"
]


class IntParams(QuantizerParams):
    """Integers of `bits` bits, scaled by the largest magnitude of a group."""

    target: ClassVar[str] = "edgerazor.plugins.quantizers.integer:IntQuantizer"
    name: Literal["int"] = "int"
    bits: Annotated[int, Field(ge=2, le=8)]
    symmetric: Annotated[bool, Field(description="false: one more step on the negative side, still no zero point.")] = (
        True
    )
    scale_dtype: ScaleDtype = "float16"


class TernaryParams(QuantizerParams):
    """-1, 0 and 1 times a scale: the mean magnitude times `scale_multiplier`, or the largest magnitude."""

    target: ClassVar[str] = "edgerazor.plugins.quantizers.ternary:TernaryQuantizer"
    name: Literal["ternary"] = "ternary"
    scale: Literal["absmean", "absmax"] = "absmean"
    scale_multiplier: Annotated[float, Field(gt=0)] = 2.0
    scale_dtype: ScaleDtype = "float16"


class SQMPParams(QuantizerParams):
    """Integer rows among ternary rows; `high_ratio` is the share of the integer part."""

    target: ClassVar[str] = "edgerazor.plugins.quantizers.sqmp:SQMPQuantizer"
    name: Literal["sqmp"] = "sqmp"
    high_ratio: Annotated[float | str, Field(description="A decimal such as 0.125 or a fraction such as '1/3'.")]
    high_bits: Annotated[int, Field(ge=3, le=8)] = 4
    placement: Placement = "every_nth_row"
    scale_multiplier: Annotated[float, Field(gt=0)] = 2.0
    scale_dtype: ScaleDtype = "float16"

    @field_validator("high_ratio", mode="before")
    @classmethod
    def _a_share(cls, value: Any) -> Any:
        try:
            ratio = exact_ratio(value)
        except (ValueError, ZeroDivisionError):
            raise problem(f"{value!r} is not a ratio; write 0.125 or '1/8'") from None
        if not 0 <= ratio <= 1:
            raise problem(f"{value} is not between 0 and 1")
        return value if isinstance(value, str) else float(value)

    @model_validator(mode="after")
    def _usable_ratio(self) -> "SQMPParams":
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
