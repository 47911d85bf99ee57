"""What a target in bits means, and the uniform row mix of the same size that an allocation is compared with."""

from collections.abc import Sequence
from fractions import Fraction

from edgerazor.allocate.options import HUNDREDTHS
from edgerazor.core.tensor import TERNARY_BITS
from edgerazor.errors import RecipeError

_LOWEST = Fraction(str(TERNARY_BITS))


def exact_target(bits: float | Fraction, *, high_bits: int = 4) -> tuple[Fraction, str]:
    """The target as an exact number of nominal bits, and the uniform candidate that has that size or less.

    A target of two decimals that a ratio 1/n of int rows rounds or is cut to means that ratio: 1.88 is 1.8825, the
    ratio 1/8, as the presets are named (METHOD 2.4).

    Raises:
        RecipeError: below ternary, the narrowest there is.
    """
    target, span = bits if isinstance(bits, Fraction) else Fraction(str(bits)), high_bits - _LOWEST
    if target < _LOWEST:
        raise RecipeError(
            f"a target of {float(bits):g} bits: ternary matrices have {TERNARY_BITS} bits, so that is the least"
        )
    if target >= high_bits:
        return target, f"int{high_bits}"
    if target == _LOWEST:
        return target, "ternary"
    spacing = span / (target - _LOWEST)
    for n in (int(spacing), int(spacing) + 1):
        nominal = _LOWEST + span / n
        if target in (round(nominal, 2), Fraction(int(nominal * HUNDREDTHS), HUNDREDTHS)):
            return nominal, f"1/{n}"
    return target, f"1/{-(-spacing.numerator // spacing.denominator)}"


def budget_of(target: Fraction, weights: Sequence[int]) -> int:
    """Size of so many weights at the target, in hundredths of a bit, rounded down."""
    return int(target * HUNDREDTHS * sum(weights))
