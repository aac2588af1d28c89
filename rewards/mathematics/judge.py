"""What a completion is worth beside a reference: whether both can be read, and whether they agree."""

from __future__ import annotations

import re
from functools import lru_cache

from rewards.mathematics.claims import Claim, claims_of, reference_of
from rewards.mathematics.comparison import EQUAL, UNREADABLE_ANSWER, Algebra, compare
from rewards.mathematics.cost import check_cost
from rewards.mathematics.notation import Unreadable, Written, read
from rewards.mathematics.words import is_date, is_time, is_words, letters, number_in, words

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
    gold, claims = reference_of(reference), claims_of(completion)
    if words(gold) and all(claim.readings and words(gold) == words(claim.readings[0]) for claim in claims):
        return 1.0
    wanted = _read_reference(gold, algebra)
    if isinstance(wanted, str):
        raise Unreadable(
            f"the reference {reference!r:.200} cannot be read: {wanted}. Write it as a LaTeX formula, or drop the row"
        )
    if all(_says(claim, gold, wanted, algebra) for claim in reversed(claims)):
        return 1.0
    several = len(claims) > 1 and all(claim.readings for claim in claims)
    together = ", ".join(claim.readings[0] for claim in claims) if several else ""
    return float(bool(together) and wanted is not None and _says(Claim.of(together), gold, wanted, algebra))


def _says(claim: Claim, gold: str, wanted: Written | None, algebra: Algebra) -> bool:
    """Whether one claim says what the reference says. Raises Malformed."""
    if wanted is None:
        return any(letters(gold) == letters(each) for each in claim.readings)
    got = _first_readable(claim, gold)
    if got is None:
        return False
    verdict = EQUAL if got == wanted else compare(wanted, got, algebra)
    if verdict == UNREADABLE_ANSWER:
        raise Malformed(_NO_GRAMMAR)
    return verdict == EQUAL


@lru_cache(maxsize=4096)
def _read_reference(gold: str, algebra: Algebra) -> Written | str | None:
    """What cannot be read, as its reason; None for what is compared as text."""
    if gold and is_words(gold):
        return None
    try:
        written = _written(gold)
    except Unreadable as error:
        return str(error)
    return written if compare(written, written, algebra) == EQUAL else _NO_GRAMMAR


def _written(text: str) -> Written:
    check_cost(text)
    if is_date(text):
        raise Unreadable("it is a date")
    number = number_in(text)
    if number is not None:
        return Written((str(number),))
    written = read(text)
    for formula in written.formulas():  # in which an exponent may be spelled as one
        check_cost(formula)
    return written


def _first_readable(claim: Claim, gold: str) -> Written | None:
    """None where there is no answer. Raises Malformed where there is one that cannot be read."""
    reason = None
    for place, each in enumerate(claim.readings):
        try:
            if is_time(each) and ":" not in gold:
                raise Unreadable("it is a time")
            written = _written(each)
        except Unreadable as error:
            reason = reason or str(error)
            continue
        last = place == len(claim.readings) - 1
        if written.unit is not None or last or not _SHORT_WORDS.search(each):  # "So x = 5" is prose
            return written
    if reason is not None:
        raise Malformed(reason)
    return None
