"""Whether an answer, as it is written, is what a reference asks for: units, bases and moduli first, then the values.

The reference decides what matters. A unit or a base that only the answer has is ignored, percent excepted: 50 % is
neither 50 nor 0.5.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from rewards.mathematics.notation import Written
from rewards.mathematics.numbers import close, plain
from rewards.mathematics.units import canonical

EQUAL, DIFFERENT, UNREADABLE_ANSWER, UNREADABLE_REFERENCE = 1.0, 0.0, -1.0, -2.0

Algebra = Callable[[Written, Written], float]
"""`rewards.mathematics.equality.equal` of one pair, under a deadline; raises when it is not met."""

_CURRENCIES = ("$", "€", "£", "¥", "₹")


def compare(gold: Written, given: Written, algebra: Algebra) -> float:
    """One of the constants above.

    Args:
        algebra: compares formulas. What it raises is passed on.
    """
    if gold.modulus is not None or given.modulus is not None:
        return _congruent(gold, given, algebra)
    if gold.base is not None:
        return float((gold.parts, gold.base) == (given.parts, given.base))
    if gold.unit == "°" and given.unit is None:
        return _values(_radians(gold), given, algebra)
    gold, given = _with_sign(gold, given.unit), _with_sign(given, gold.unit)
    said = ((gold.name, given.name), (gold.joined, given.joined))
    if not _same_unit(gold.unit, given.unit) or any(one and other and one != other for one, other in said):
        return DIFFERENT
    verdict = _values(gold, given, algebra)
    if verdict == DIFFERENT and given.unit == "°" and gold.unit is None:
        return _values(gold, _radians(given), algebra)
    return verdict


def _same_unit(gold: str | None, given: str | None) -> bool:
    if gold in _CURRENCIES and given is None:
        return True
    return gold == given or (gold is None and given != "%")


def _with_sign(written: Written, unit: str | None) -> Written:
    """`5 m` as five metres beside something that has metres; by itself it is a product."""
    if unit is None or written.unit is not None or len(written.parts) != 1 or not isinstance(written.parts[0], str):
        return written
    value = re.fullmatch(r"(.*[\d)}])\s*([A-Za-z][A-Za-z/^\d{}]*)", written.parts[0])
    if value is None or canonical(value[2].replace("{", "").replace("}", "")) != unit:
        return written
    return replace(written, parts=(value[1],), unit=unit)


def _radians(written: Written) -> Written:
    parts = tuple(rf"({part}) \cdot \frac{{\pi}}{{180}}" if isinstance(part, str) else part for part in written.parts)
    return replace(written, parts=parts)


def _congruent(gold: Written, given: Written, algebra: Algebra) -> float:
    """Numbers are congruent or not; other residues must be the same formula."""
    if gold.modulus is None:  # the answer says more than it is asked for
        return _values(gold, replace(given, parts=given.parts[-1:]), algebra)
    if given.modulus is None or _values(Written((gold.modulus,)), Written((given.modulus,)), algebra) != EQUAL:
        return DIFFERENT
    if len(gold.parts) == len(given.parts) == 2 and gold.parts[0] != given.parts[0]:
        return DIFFERENT
    wanted, got, modulus = (_plain(part) for part in (gold.parts[-1], given.parts[-1], gold.modulus))
    if wanted and got and modulus and modulus[0] != 0:
        return float((wanted[0] - got[0]) % modulus[0] == 0)
    return _values(Written(gold.parts[-1:]), Written(given.parts[-1:]), algebra)


def _values(gold: Written, given: Written, algebra: Algebra) -> float:
    """Numerals are compared here, which takes no other process."""
    if len(gold.parts) == len(given.parts) == 1 and not gold.brackets and not given.brackets:
        wanted, got = _plain(gold.parts[0]), _plain(given.parts[0])
        if wanted and got:
            exact = wanted[1] and got[1]
            return float(wanted[0] == got[0] if exact else close(wanted[0], got[0]))
    return algebra(*(replace(each, unit=None, modulus=None) for each in (gold, given)))


def _plain(part: str | Written) -> tuple | None:
    return plain(part) if isinstance(part, str) else None
