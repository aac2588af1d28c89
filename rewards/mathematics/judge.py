"""What a completion is worth beside a reference: whether both can be read, and whether they agree."""

from __future__ import annotations

import re
from functools import lru_cache

from rewards.mathematics.comparison import EQUAL, UNREADABLE_ANSWER, Algebra, compare
from rewards.mathematics.cost import check_cost
from rewards.mathematics.extract import answers_of, reference_of
from rewards.mathematics.notation import Unreadable, Written, read

_DATE = re.compile(r"\d{1,4}[-/]\d{1,2}[-/]\d{1,4}|\d{1,2}:\d\d(?::\d\d)?")
_PROSE = re.compile(
    r"[A-Za-z]{2,}(?:[ -][A-Za-z]+)+|[A-Za-z]{3,}|\(?[A-J]\)?|\\(?:text|mathrm|mbox|textrm)\s*\{[^{}]*\}"
)
_SHORT_WORDS = re.compile(
    r"(?<![A-Za-z\\{])(?!(?:and|or|sin|cos|tan|log|ln|exp|max|min|gcd|lcm|pi)(?![A-Za-z]))[A-Za-z]{2,}(?![A-Za-z}])"
)
_NO_GRAMMAR = "the grammar of formulas does not read it"


class Malformed(Exception):
    """An answer that cannot be read."""


def judge(completion: str, reference: str, algebra: Algebra) -> float:
    """1 or 0.

    Raises:
        Unreadable: the reference cannot be read. Malformed: the answer cannot. Whatever `algebra` raises.
    """
    gold = reference_of(reference)
    answers = [each for each in answers_of(completion) if each]
    if gold and any(_words(gold) == _words(each) for each in answers):
        return 1.0
    wanted = _read_reference(gold, algebra)
    if isinstance(wanted, str):
        raise Unreadable(
            f"the reference {reference!r:.200} cannot be read: {wanted}. Write it as a LaTeX formula, or drop the row"
        )
    if wanted is None:
        return float(any(_letters(gold) == _letters(each) for each in answers))
    got = _first_readable(answers)
    if got is None:
        return 0.0
    verdict = compare(wanted, got, algebra)
    if verdict == UNREADABLE_ANSWER:
        raise Malformed(_NO_GRAMMAR)
    return float(verdict == EQUAL)


@lru_cache(maxsize=4096)
def _read_reference(gold: str, algebra: Algebra) -> Written | str | None:
    """What cannot be read, as its reason; None for what is compared as text."""
    if gold and (_DATE.fullmatch(gold) or _PROSE.fullmatch(gold)):
        return None
    try:
        written = _written(gold)
    except Unreadable as error:
        return str(error)
    return written if compare(written, written, algebra) == EQUAL else _NO_GRAMMAR


def _written(text: str) -> Written:
    check_cost(text)
    written = read(text)
    for formula in written.formulas():  # in which an exponent may be spelled as one
        check_cost(formula)
    return written


def _first_readable(answers: list[str]) -> Written | None:
    """None where there is no answer. Raises Malformed where there is one that cannot be read."""
    reason = None
    for place, each in enumerate(answers):
        try:
            written = _written(each)
        except Unreadable as error:
            reason = reason or str(error)
            continue
        if (
            written.unit is not None or place == len(answers) - 1 or not _SHORT_WORDS.search(each)
        ):  # "So x = 5" is prose
            return written
    if reason is not None:
        raise Malformed(reason)
    return None


def _words(text: str) -> str:
    """Text for literal comparison. Only what cannot change a mathematical meaning is dropped."""
    text = re.sub(r"\\(?:text|mathrm|mbox|textrm)\s*\{([^{}]*)\}", r"\1", text.strip("$. \n"))
    return re.sub(r"\s*([,;=])\s*", r"\1", " ".join(text.split()))


def _letters(text: str) -> str:
    return _words(text).strip("()").casefold()
