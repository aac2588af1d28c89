"""What is refused before anything computes it: numbers and formulas beyond any reasonable answer.

A few signs can say a number that no memory holds (`9^{9^{9}}`). Whether an answer is refused here depends on its text
alone, so it is the same on every machine. What this lets through and is still slow meets the deadline.
"""

from __future__ import annotations

import re

from rewards.mathematics.extract import LENGTH_LIMIT
from rewards.mathematics.notation import Unreadable

DEPTH_LIMIT = 40
"""Brackets within brackets; every one is several calls of a recursive parser."""
DIGIT_LIMIT = 400
"""Digits of one numeral."""
EXPONENT_LIMIT = 10_000
"""Of a numeral in an exponent, in a binomial coefficient, and under a factorial."""

_EXPONENT = re.compile(r"\^\s*\{?\s*[-+]?\s*\(?\s*(\d+)|\\binom\s*\{\s*(\d+)")
_FACTORIAL = re.compile(r"(\d+)\s*[)}]*\s*!")
_BRACKETS = re.compile(r"[({\[]|[)}\]]")


def check_cost(text: str) -> None:
    """Raises Unreadable, which says what is too large."""
    if len(text) > LENGTH_LIMIT:
        raise Unreadable(f"it has {len(text)} characters, more than {LENGTH_LIMIT}")
    depth = deepest = 0
    for sign in _BRACKETS.findall(text):
        depth += 1 if sign in "({[" else -1
        deepest = max(deepest, depth)
    if deepest > DEPTH_LIMIT or text.count("^") > DEPTH_LIMIT or text.count(r"\frac") > 2 * DEPTH_LIMIT:
        raise Unreadable(f"its formulas are nested deeper than {DEPTH_LIMIT}")
    if re.search(rf"\d{{{DIGIT_LIMIT + 1}}}", text):
        raise Unreadable(f"it has a numeral of more than {DIGIT_LIMIT} digits")
    for pattern, what in ((_EXPONENT, "exponent or binomial coefficient of"), (_FACTORIAL, "factorial of")):
        numerals = ["".join(match.groups(default="")) for match in pattern.finditer(text)]
        large = [numeral for numeral in numerals if int(numeral) > EXPONENT_LIMIT]
        if large:
            raise Unreadable(f"it has the {what} {large[0][:20]}, more than {EXPONENT_LIMIT}")
    if _tower(text):
        raise Unreadable("it has a power or a factorial in an exponent")
    if re.search(r"!\s*[)}\]]*\s*!|!\s*[)}\]]*\s*\^|\^\s*\{[^{}]*!", text):
        raise Unreadable("it has a factorial of a factorial or a power of one")


def _tower(text: str) -> bool:
    r"""Whether a power of numerals stands in an exponent (`2^{3^4}`, `2^3^4`); `e^{x^2}` is none."""
    return bool(re.search(r"\^\s*(?:\d+|[{(][^{}()]*?\d\s*)\s*\^", text))
