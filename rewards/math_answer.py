"""Mathematical answers: 1 for what says the same as the reference.

The reference is read to its last sign, or the row is in error: nobody can be right or wrong about what was not
understood. So is an answer, or it is wrong; that is counted as `malformed`. Algebra runs in a process of its own, under
a deadline that holds in any thread; what does not meet it is not scored.

Known limits. The reference decides what matters: a unit or a base that only the *answer* has is ignored, and so is the
sign of a currency that only one of them has. `50\\%` equals neither 0.5 nor 50. An equation `x = 5` equals 5. Plain
words, dates and times are compared as text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from rewards.mathematics.bounded import Unanswered
from rewards.mathematics.comparison import EQUAL, UNREADABLE_ANSWER, compare
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


class NotScored(ValueError):
    """Some samples have no score; says why."""


def math(
    completions: list[str],
    answer: list[str | None] | None = None,
    solution: list[str | None] | None = None,
    log_malformed: Callable[[int, str, str], None] | None = None,
    **_: Any,
) -> list[float | None]:
    r"""1 for a right answer, 0 for a wrong or missing one, None where the reference is blank or None: a problem of
    another data set, which has none.

    The answer of a completion is the content of its last `\boxed{}` or `<answer>`; without one, what follows the last
    `####`, "answer is" or "answer:"; without those, the text or the last formula or number in it.

    Args:
        answer: N references, bare or boxed. `solution`, the name that TRL uses, is read when there is no `answer`.
        log_malformed: is told of each answer that cannot be read: its place, what reads it, and why it cannot.

    Raises:
        NotScored: a reference is empty or cannot be read, or algebra did not end in time. The others are scored by
            calls of their own, as `Scorer` does.
    """
    references = answer if answer is not None else solution
    if references is None:
        raise ValueError("the reward `math` needs a dataset column `answer` or `solution`")
    scores: list[float | None] = []
    reasons: list[str] = []
    for index, (completion, reference) in enumerate(zip(completions, references, strict=True)):
        score = None
        if reference is not None and str(reference).strip():
            try:
                score = _score(completion, str(reference))
            except (Unreadable, Unanswered) as error:
                reasons.append(f"sample {index}: {error}")
            except _Malformed as error:
                score = 0.0
                if log_malformed is not None:
                    log_malformed(index, "math", str(error))
        scores.append(score)
    if reasons:
        more = f", and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        raise NotScored("; ".join(reasons[:3]) + more)
    return scores


class _Malformed(Exception):
    """An answer that cannot be read."""


def _score(completion: str, reference: str) -> float:
    """Raises Unreadable, of the reference; Unanswered; _Malformed."""
    gold = reference_of(reference)
    answers = [each for each in answers_of(completion) if each]
    if gold and any(_words(gold) == _words(each) for each in answers):
        return 1.0
    wanted = _read_reference(gold)
    if isinstance(wanted, str):
        raise Unreadable(
            f"the reference {reference!r:.200} cannot be read: {wanted}. Write it as a LaTeX formula, or drop the row"
        )
    if wanted is None:
        return float(any(_letters(gold) == _letters(each) for each in answers))
    got = _first_readable(answers)
    if got is None:
        return 0.0
    verdict = compare(wanted, got)
    if verdict == UNREADABLE_ANSWER:
        raise _Malformed(_NO_GRAMMAR)
    return float(verdict == EQUAL)


@lru_cache(maxsize=4096)
def _read_reference(gold: str) -> Written | str | None:
    """What cannot be read, as its reason; None for what is compared as text. Raises Unanswered."""
    if gold and (_DATE.fullmatch(gold) or _PROSE.fullmatch(gold)):
        return None
    try:
        written = _written(gold)
    except Unreadable as error:
        return str(error)
    return written if compare(written, written) == EQUAL else _NO_GRAMMAR


def _written(text: str) -> Written:
    check_cost(text)
    written = read(text)
    for formula in written.formulas():  # in which an exponent may be spelled as one
        check_cost(formula)
    return written


def _first_readable(answers: list[str]) -> Written | None:
    """None where there is no answer. Raises _Malformed where there is one that cannot be read."""
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
        raise _Malformed(reason)
    return None


def _words(text: str) -> str:
    """Text for literal comparison. Only what cannot change a mathematical meaning is dropped."""
    text = re.sub(r"\\(?:text|mathrm|mbox|textrm)\s*\{([^{}]*)\}", r"\1", text.strip("$. \n"))
    return re.sub(r"\s*([,;=])\s*", r"\1", " ".join(text.split()))


def _letters(text: str) -> str:
    return _words(text).strip("()").casefold()
