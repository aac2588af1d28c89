"""Intervals, inequalities and unions as sets of real numbers: `(0, \\infty)` is `x > 0`."""

from __future__ import annotations

from typing import Any

import sympy
from sympy.core.relational import Relational
from sympy.logic.boolalg import And, Or

from rewards.mathematics.notation import Written

_INTERVALS = ("()", "(]", "[)", "[]")


def as_set(written: Written, values: list[Any]) -> tuple[str, sympy.Set] | None:
    """The set and the variable in it, "" where none is named; None for what is no interval, union or inequality of one
    variable, or what sympy cannot solve."""
    try:
        return _set(written, values)
    except (NotImplementedError, TypeError, ValueError, AttributeError):
        return None


def about_sets(gold: Written, given: Written) -> bool:
    """Whether one of the two may be an interval or an inequality that the other spells as something else: what has the
    same brackets is compared part by part."""
    return gold.brackets != given.brackets or not gold.brackets


def _set(written: Written, values: list[Any]) -> tuple[str, sympy.Set] | None:
    if any(isinstance(value, list | sympy.MatrixBase) for value in values):
        return None
    if written.brackets in _INTERVALS and len(values) == 2:
        if not all(isinstance(value, sympy.Expr) for value in values):
            return None
        if any(value.is_infinite and side in "[]" for value, side in zip(values, written.brackets, strict=True)):
            return None  # sympy would open it
        return written.name, _exact(sympy.Interval(*values, written.brackets[0] == "(", written.brackets[1] == ")"))
    if written.brackets:
        return None
    if len(values) == 1 and isinstance(values[0], sympy.Set) and not isinstance(values[0], sympy.FiniteSet):
        return "", _exact(values[0])
    if not all(isinstance(value, Relational | And | Or) and not isinstance(value, sympy.Eq) for value in values):
        return None
    names = set().union(*(value.free_symbols for value in values))
    if len(names) != 1 or (len(values) > 1 and not written.joined):
        return None
    sets = [_exact(value).as_set() for value in values]
    joined = sympy.Intersection(*sets) if written.joined == "and" else sympy.Union(*sets)
    return names.pop().name, joined


def same_set(gold: tuple[str, sympy.Set], given: tuple[str, sympy.Set]) -> bool:
    if gold[0] and given[0] and gold[0] != given[0]:
        return False
    return bool(gold[1] == given[1] or sympy.SymmetricDifference(gold[1], given[1]).simplify() == sympy.S.EmptySet)


def _exact(value: Any) -> Any:
    """Decimals as the fractions that they are."""
    return value.xreplace({number: sympy.Rational(str(number)) for number in value.atoms(sympy.Float)})
