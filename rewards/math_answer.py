"""Mathematical answers, compared by math-verify behind checks of what it is known to get wrong.

math-verify compares values: it drops units, ignores the base of a number, rounds to six decimals, takes a set for a
tuple and reads a date as a subtraction. The checks here refuse an answer that differs from the reference in any
of these.

Known limits. The reference decides what matters: a unit or a base that only the *answer* has is ignored. Degrees and
currency signs are ignored. `50\\%` equals neither 0.5 nor 50. An equation `x = 5` equals 5. Plain words are compared as
text. An answer that cannot be parsed is wrong. math-verify's own timers stay off, because they work in the main thread
only and score a timeout as wrong: the scorer's deadline takes their place.
"""

from __future__ import annotations

import logging
import math as numbers
import re
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its timers are off

_EXTRACTION = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())
_SIGNIFICANT_DIGITS = 6

_ANSWER_MARK = re.compile(r"####|(?:answer|Answer|ANSWER)\s*(?:is|:)")
_UNIT = re.compile(r"(?:\\(?:text|mathrm|mbox|textrm)\s*\{([^{}]*)\}|(?<=\s)([A-Za-z]{2,}))\s*((?:\^\{?\d\}?)?)\s*\.?$")
_BASE = re.compile(r"^\s*\(?([0-9A-Za-z]+)\)?\s*_\s*(?:\{\s*(?:\\text\{)?(\w+)\}*|(\w))\s*$")
_DATE = re.compile(r"^\d{1,4}[-/]\d{1,2}[-/]\d{1,4}$")
_PROSE = re.compile(r"[A-Za-z]{3,}(?: [A-Za-z]+)*|\\(?:text|mathrm|mbox|textrm)\s*\{[^{}]*\}")
_BRACKETED = re.compile(r"^(?:\\left)?\s*(\(|\[|\\\{).*,.*(?:\)|\]|\\\})$", re.DOTALL)


def math(
    completions: list[str], answer: list[str | None] | None = None, solution: list[str | None] | None = None, **_: Any
) -> list[float | None]:
    r"""1 for a right answer, 0 for a wrong or missing one, None where the reference is empty or None: a problem of
    another data set, which has none.

    The answer of a completion is the content of its last `\boxed{}`; without one, what follows the last `####`,
    "answer is" or "answer:"; without those, the last expression that math-verify finds.

    Args:
        answer: N references, bare or boxed. `solution`, the name that TRL uses, is read when there is no `answer`.
    """
    references = answer if answer is not None else solution
    if references is None:
        raise ValueError("the reward `math` needs a dataset column `answer` or `solution`")
    return [
        _score(completion, str(reference)) if reference is not None and str(reference).strip() else None
        for completion, reference in zip(completions, references, strict=True)
    ]


def _score(completion: str, reference: str) -> float:
    gold, given = _answer(reference), _answer(completion)
    if not given:
        return 0.0
    if _words(gold) == _words(given):
        return 1.0
    if _DATE.match(gold) or _PROSE.fullmatch(gold):
        return float(_words(gold).strip("()").casefold() == _words(given).strip("()").casefold())
    if _differs_where_it_matters(gold, given):
        return 0.0
    gold_parsed, given_parsed = _parse(gold), _parse(given)
    return float(verify(gold_parsed, given_parsed, float_rounding=_decimals(gold_parsed), timeout_seconds=None))


def _answer(text: str) -> str:
    boxed = _last_boxed(text)
    if boxed is not None:
        return boxed
    marks = list(_ANSWER_MARK.finditer(text))
    return text[marks[-1].end() :].strip() if marks else text.strip()


def _last_boxed(text: str) -> str | None:
    """None without a box; a box that is never closed is empty."""
    start = text.rfind(r"\boxed{")
    if start < 0:
        return None
    depth, begin = 0, start + len(r"\boxed")
    for place in range(begin, len(text)):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return text[begin + 1 : place].strip()
    return ""


def _words(text: str) -> str:
    """Text for literal comparison. Only what cannot change a mathematical meaning is dropped."""
    text = re.sub(r"\\(?:text|mathrm|mbox|textrm)\s*\{([^{}]*)\}", r"\1", text.strip("$. \n"))
    return " ".join(text.split())


def _differs_where_it_matters(gold: str, given: str) -> bool:
    gold, given = gold.strip("$ \n"), given.strip("$ \n")
    unit, base, bracket = _unit(gold), _base(gold), _bracket(gold)
    return (
        (unit is not None and unit != _unit(given))
        or (base is not None and base != _base(given))
        or (bracket is not None and bracket != (_bracket(given) or bracket))
    )


def _unit(text: str) -> str | None:
    match = _UNIT.search(text)
    if match is None or match.start() == 0:
        return None
    return re.sub(r"[\s{}]", "", "".join(part or "" for part in match.groups()))


def _base(text: str) -> tuple[str, str] | None:
    match = _BASE.match(text)
    return (match[1].lstrip("0").casefold(), (match[2] or match[3]).casefold()) if match else None


def _bracket(text: str) -> str | None:
    match = _BRACKETED.match(text)
    return match[1] if match else None


def _parse(text: str) -> list[Any]:
    return parse(rf"\boxed{{{text}}}", _EXTRACTION, parsing_timeout=None)


def _decimals(parsed: list[Any]) -> int:
    """Decimals that math-verify should round to: at least `_SIGNIFICANT_DIGITS` significant digits of the reference."""
    try:
        magnitude = numbers.floor(numbers.log10(abs(float(parsed[0]))))
    except (IndexError, TypeError, ValueError, OverflowError):  # not a number, or zero
        return _SIGNIFICANT_DIGITS
    return max(_SIGNIFICANT_DIGITS, _SIGNIFICANT_DIGITS - 1 - magnitude)
