"""When two numbers are the same: exactly, or where one has a decimal point, to at least six significant digits."""

from __future__ import annotations

import math
import re
from fractions import Fraction

SIGNIFICANT_DIGITS = 6

_DECIMAL = r"[-+]?\s*(?:\d+(?:\.\d*)?|\.\d+)"
_PLAIN = re.compile(rf"({_DECIMAL})(?:\s*\\times\s*10\s*\^\s*\{{?\s*([-+]?\d{{1,4}})\s*\}}?)?")
_FRACTION = re.compile(r"([-+]?)\s*(?:\\frac\{\s*(-?\d+)\s*\}\{\s*(\d+)\s*\}|(\d+)\s*/\s*(\d+))")


def plain(formula: str) -> tuple[Fraction, bool] | None:
    """The value of a numeral or a fraction of two, and whether it is exact, which a decimal point says it is not; None
    for any other formula."""
    numeral = _PLAIN.fullmatch(formula)
    if numeral:
        value = Fraction(numeral[1].replace(" ", "")) * Fraction(10) ** int(numeral[2] or 0)
        return value, "." not in numeral[1]
    fraction = _FRACTION.fullmatch(formula)
    if fraction is None or int(fraction[3] or fraction[5]) == 0:
        return None
    value = Fraction(int(fraction[2] or fraction[4]), int(fraction[3] or fraction[5]))
    return (-value if fraction[1] == "-" else value), True


def close(gold: Fraction, given: Fraction, size: Fraction | None = None) -> bool:
    """Whether they differ by no more than half of the last digit that counts.

    Args:
        size: of the whole number that they are the real or the imaginary parts of; without it, that of `gold`.
    """
    return abs(gold - given) <= Fraction(1, 2) / Fraction(10) ** decimals(abs(gold) if size is None else size)


def decimals(size: Fraction) -> int:
    """Decimals that count in a number of this size: six, and more where they give fewer than six significant digits.

    Of 0 all count that a number of a reasonable size can have.
    """
    if size == 0:
        return 10 * SIGNIFICANT_DIGITS
    magnitude = math.floor(math.log10(size.numerator) - math.log10(size.denominator))
    return max(SIGNIFICANT_DIGITS, SIGNIFICANT_DIGITS - 1 - magnitude)
