"""Whether an answer says what a reference says: the part that needs algebra, for a process that may be killed.

math-verify's grammar reads each formula, to its end, and its `verify` decides about formulas with variables. Numbers,
lists, sets, intervals, matrices and equations are compared here: `verify` compares numbers by an absolute tolerance,
wherever they stand in them.
"""

from __future__ import annotations

import contextlib
import logging
import random
import re
import signal
import threading
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Any

import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, NormalizationConfig, latex2sympy, normalize_latex
from math_verify import verify
from math_verify.grader import should_treat_as_complex
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational

from rewards.mathematics.notation import Unreadable, Written
from rewards.mathematics.numbers import SIGNIFICANT_DIGITS, close, decimals
from rewards.mathematics.sets import about_sets, as_set, same_set

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its timers are off

EQUAL, DIFFERENT, UNREADABLE_ANSWER, UNREADABLE_REFERENCE = 1.0, 0.0, -1.0, -2.0
"""What `equal` returns; numbers, because that is what a scoring process may return."""

_NORMALIZATION = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
)
_CONVERSION = ConversionConfig(lowercase_symbols=False)  # R / r is not 1
_IMAGINARY = re.compile(r"(?<![A-Za-z\\])i(?![A-Za-z])|\\sqrt\s*\{\s*-\s*[\d.]+\s*\}|(?<=\d)i|(?<![A-Za-z\\])i(?=\\)")
_INDEXED = re.compile(r"\\(?:sum|prod|int|lim)|_\s*\{?\s*i|i\s*_")
_DIGITS = 40
"""Digits to which numbers without a decimal point are computed where algebra does not decide."""
_POINTS = 3
"""Random points at which formulas that `verify` calls equal must be equal."""


class _TimeIsUp(BaseException):
    """Not an Exception, of which sympy catches many."""


def equal(completions: list[tuple[Written, Written]], seconds: list[float] | None = None, **_: Any) -> list[float]:
    """One of the constants above for each pair (reference, answer); the signature is that of a reward function.

    Args:
        seconds: that each pair may take. A loop in Python ends then, and the process goes on; whoever owns the process
            kills it for what does not end by itself, such as the product of two large integers.

    Raises:
        TimeoutError: it took longer.
    """
    verdicts = []
    for place, (gold, given) in enumerate(completions):
        with _alarm(seconds[place] if seconds else None):
            verdicts.append(_verdict(gold, given))
    return verdicts


@contextlib.contextmanager
def _alarm(seconds: float | None) -> Iterator[None]:
    """Raises TimeoutError; outside of a main thread, which alone hears signals, it does nothing."""
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: Any) -> None:
        raise _TimeIsUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _TimeIsUp:
        raise TimeoutError("no answer in time") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _verdict(gold: Written, given: Written) -> float:
    formulas = [*gold.formulas(), *given.formulas()]
    complex_numbers = any(map(should_treat_as_complex, formulas)) or any(map(_has_imaginary_unit, formulas))
    wanted = _read(gold, complex_numbers)
    if wanted is None:
        return UNREADABLE_REFERENCE
    got = _read(given, complex_numbers)
    same = None if got is None else _holds(gold, given, wanted, got)
    return UNREADABLE_ANSWER if same is None else EQUAL if same else DIFFERENT


def _read(written: Written, complex_numbers: bool) -> list[Any] | None:
    """None for what the grammar or sympy refuses."""
    try:
        return _values(written, complex_numbers)
    except MemoryError:
        raise
    except Exception:  # of any kind
        return None


def _holds(gold: Written, given: Written, wanted: list[Any], got: list[Any]) -> bool | None:
    """None where algebra raises."""
    try:
        return _same(gold, given, wanted, got)
    except MemoryError:
        raise
    except Exception:  # of any kind
        return None


def _values(written: Written, complex_numbers: bool) -> list[Any]:
    return [
        _values(part, complex_numbers) if isinstance(part, Written) else _value(part, complex_numbers)
        for part in written.parts
    ]


@lru_cache(maxsize=1024)  # to parse takes longer than to compare, and a group has one reference
def _value(formula: str, complex_numbers: bool) -> Any:
    latex = normalize_latex(formula, _NORMALIZATION)
    value = latex2sympy(
        latex,
        is_real=not complex_numbers,
        convert_degrees=False,
        normalization_config=None,
        conversion_config=_CONVERSION,
    )
    if not isinstance(value, sympy.Basic | sympy.MatrixBase):
        raise Unreadable(f"it is read as a {type(value).__name__}")
    if complex_numbers and _has_imaginary_unit(formula):
        value = value.subs({symbol: sympy.I for symbol in value.free_symbols if symbol.name == "i"})
    if isinstance(value, sympy.Basic) and value.has(sympy.nan, sympy.zoo):
        raise Unreadable("it is no number")
    return value


def _has_imaginary_unit(formula: str) -> bool:
    """Whether i is the imaginary unit, and no index."""
    return bool(_IMAGINARY.search(formula)) and not _INDEXED.search(formula)


def _same(gold: Written, given: Written, wanted: list[Any], got: list[Any]) -> bool:
    """Of two lists, tuples, sets or intervals, or of two formulas."""
    if about_sets(gold, given):
        one, other = as_set(gold, wanted), as_set(given, got)
        if one is not None and other is not None:
            return same_set(one, other)
    if len(wanted) != len(got) or not _brackets_fit(gold, given):
        return False
    ordered = gold.brackets not in ("", "{}") or given.brackets not in ("", "{}")
    if len(wanted) == 1 or ordered:
        return all(_same_part(*pair) for pair in zip(gold.parts, given.parts, wanted, got, strict=True))
    left = list(range(len(got)))
    for part, value in zip(gold.parts, wanted, strict=True):
        found = next((i for i in left if _same_part(part, given.parts[i], value, got[i])), None)
        if found is None:
            return False
        left.remove(found)
    return True


def _brackets_fit(gold: Written, given: Written) -> bool:
    """The same, or one of the two is a list, which may be a tuple or a set but has no ends as an interval has."""
    if gold.brackets == given.brackets:
        return True
    if gold.brackets and given.brackets:
        return False
    one = gold if gold.brackets else given
    return one.brackets in ("()", "{}") or (one.brackets == "[]" and len(one.parts) != 2)


def _same_part(gold: str | Written, given: str | Written, wanted: Any, got: Any) -> bool:
    if isinstance(gold, Written) and isinstance(given, Written):
        return _same(gold, given, wanted, got)
    return isinstance(gold, str) and isinstance(given, str) and _same_value(wanted, got)


def _same_value(gold: Any, given: Any) -> bool:
    gold, given = _without_names(gold, given)
    if isinstance(gold, sympy.MatrixBase) or isinstance(given, sympy.MatrixBase):
        both = isinstance(gold, sympy.MatrixBase) and isinstance(given, sympy.MatrixBase)
        return both and gold.shape == given.shape and all(map(_same_value, gold.flat(), given.flat()))
    if gold == given:
        return True
    if isinstance(gold, sympy.Eq) and isinstance(given, sympy.Eq) and gold.lhs == given.lhs:
        return _same_value(gold.rhs, given.rhs)
    if gold.is_Symbol and given.is_Symbol:
        return False
    if _is_number(gold) and _is_number(given):
        return _same_number(gold, given)
    if isinstance(given, sympy.Eq) and not isinstance(gold, Relational):
        return False  # `verify` takes the last side of 2 + 2 = 5 for the answer
    if not isinstance(gold, sympy.Expr) and not isinstance(given, sympy.Expr):  # inequalities, unions
        alike = gold.func is given.func and len(gold.args) == len(given.args) > 0
        if alike and all(map(_same_value, gold.args, given.args)):
            return True
        if _has_small_numbers(gold) or _has_small_numbers(given):
            return False
    return _agree(gold, given) and bool(verify(gold, given, float_rounding=_finest(gold, given), timeout_seconds=None))


def _without_names(gold: Any, given: Any) -> tuple[Any, Any]:
    """`x = 5` as 5 where the other is no equation; of a chain of equations the first side and the last."""
    gold, given = _chain(gold), _chain(given)
    if isinstance(given, sympy.Eq) and not isinstance(gold, Relational):
        true = _names(given.lhs) or (_is_number(given.lhs) and _same_value(given.lhs, given.rhs))
        return gold, given.rhs if true else given
    if isinstance(gold, sympy.Eq) and not isinstance(given, Relational) and _names(gold.lhs):
        return gold.rhs, given
    return gold, given


def _chain(value: Any) -> Any:
    relations = getattr(value, "_unsorted_args", None)
    if relations and all(isinstance(each, sympy.Eq) for each in relations):
        return sympy.Eq(relations[0].lhs, relations[-1].rhs, evaluate=False)
    return value


def _names(value: Any) -> bool:
    """A variable, a function of variables, such as f(x), or a derivative of one."""
    return value.is_Symbol or isinstance(value, AppliedUndef | sympy.Derivative)


def _is_number(value: Any) -> bool:
    return isinstance(value, sympy.Expr) and not value.free_symbols and not value.has(AppliedUndef)


def _same_number(gold: Any, given: Any) -> bool:
    if gold.is_infinite or given.is_infinite or (gold.is_Rational and given.is_Rational):
        return bool(gold == given)
    wanted, got = sympy.N(gold, _DIGITS), sympy.N(given, _DIGITS)
    if gold.has(sympy.Float) or given.has(sympy.Float):
        size = _fraction(abs(wanted))
        return all(close(_fraction(part(wanted)), _fraction(part(got)), size) for part in (sympy.re, sympy.im))
    # Without a decimal point they are equal or not: digits tell most that are not, algebra has the last word.
    near = abs(sympy.N(gold - given, _DIGITS)) <= sympy.Float(10) ** (10 - _DIGITS) * max(1, abs(wanted))
    return bool(near) and (_fraction(abs(wanted - got)) == 0 or sympy.simplify(gold - given) == 0)


def _fraction(number: Any) -> Fraction:
    """Raises TypeError for what has no value."""
    exact = sympy.Rational(number)
    return Fraction(int(exact.p), int(exact.q))


def _has_small_numbers(value: Any) -> bool:
    """Whether `verify` could take a number in it for 0."""
    numbers = (part for part in sympy.preorder_traversal(value) if _is_number(part) and not part.is_zero)
    return any(abs(sympy.N(number)) < 1e-9 for number in numbers if number.is_finite)


def _finest(*values: Any) -> int:
    """Decimals that `verify` rounds to: those that count in the smallest number of a formula."""
    sizes = [_fraction(abs(number)) for value in values for number in value.atoms(sympy.Float) if number.is_finite]
    return max((decimals(size) for size in sizes), default=SIGNIFICANT_DIGITS)


def _agree(gold: Any, given: Any) -> bool:
    """Whether formulas have the same values at some points, which most wrong ones have not.

    `verify` is slow to say so, and takes small coefficients for 0.
    """
    if not isinstance(gold, sympy.Expr) or not isinstance(given, sympy.Expr):
        return True
    draw = random.Random(0)
    rough = gold.has(sympy.Float) or given.has(sympy.Float)
    for _ in range(_POINTS):
        names = sorted(gold.free_symbols | given.free_symbols, key=str)
        point = {name: sympy.Rational(draw.randint(1001, 1999), 1000) for name in names}
        a, b = (sympy.N(value.subs(point), _DIGITS) for value in (gold, given))
        if a.is_finite and b.is_finite and not abs(a - b) <= abs(a) * (1e-6 if rough else 1e-20):
            return False
    return True
