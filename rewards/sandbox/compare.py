"""Whether what a program printed or returned is what was expected. Runs outside of the sandbox, on data."""

from __future__ import annotations

import json
import math
from typing import Any

from rewards.sandbox.inside.values import NotData, decode


def same_text(printed: str, expected: str, tolerance: float | None) -> bool:
    """Equal but for blanks at the ends of lines and empty lines at the end.

    Args:
        tolerance: words that are numbers with a point or an exponent on either side may differ by so much, absolutely
            or relatively; None: by nothing.
    """
    left, right = ([line.rstrip() for line in text.rstrip().splitlines()] for text in (printed, expected))
    if left == right:
        return True
    if tolerance is None or len(left) != len(right):
        return False
    return all(
        len(a.split()) == len(b.split())
        and all(_same_word(x, y, tolerance) for x, y in zip(a.split(), b.split(), strict=True))
        for a, b in zip(left, right, strict=True)
    )


def _same_word(printed: str, expected: str, tolerance: float) -> bool:
    if printed == expected:
        return True
    if not {".", "e", "E"} & {*printed, *expected} or "_" in printed:
        return False
    try:
        return _near(float(printed), float(expected), tolerance)
    except ValueError:
        return False


def _near(left: float, right: float, tolerance: float) -> bool:
    return math.isfinite(left) and math.isclose(left, right, rel_tol=tolerance, abs_tol=tolerance)


def same_value(answer: str, expected: Any, tolerance: float) -> bool:
    """A returned value, as the harness writes it, against the JSON of a data set.

    A tuple counts as the list that JSON makes of it, and a number as a key as its text. True and False are not 1 and 0;
    whole numbers are equal exactly, others up to the tolerance, absolutely or relatively.
    """
    try:
        return _same(decode(json.loads(answer)), expected, tolerance)
    except (NotData, ValueError, RecursionError, OverflowError):  # a program can write what it likes
        return False


def _same(value: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(value, bool) or isinstance(expected, bool):
        return value is expected
    if isinstance(value, int) and isinstance(expected, int):
        return value == expected
    if isinstance(value, int | float) and isinstance(expected, int | float):
        return value == expected or _near(value, expected, tolerance)
    if isinstance(value, list | tuple) and isinstance(expected, list):
        return len(value) == len(expected) and all(
            _same(each, other, tolerance) for each, other in zip(value, expected, strict=True)
        )
    if isinstance(value, dict) and isinstance(expected, dict):
        named = {_key(key): each for key, each in value.items()}
        return (
            len(named) == len(value)
            and named.keys() == expected.keys()
            and all(_same(named[key], expected[key], tolerance) for key in expected)
        )
    return type(value) is type(expected) and value == expected


def _key(key: Any) -> str:
    if isinstance(key, bool) or key is None:
        return json.dumps(key)
    return str(key) if isinstance(key, str | int | float) else ""
