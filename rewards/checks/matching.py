"""Texts that are compared as texts: the same as the reference, or what a pattern describes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from numbers import Integral
from typing import Any

from rewards.checks.answers import LogMalformed, column, scores, tagged

_ARTICLE = re.compile(r"\b(?:a|an|the)\b")


def exact_match(
    completions: list[str],
    answer: Sequence[Any] | None = None,
    solution: Sequence[Any] | None = None,
    answer_tag: str | None = None,
    ignore_case: bool = False,
    ignore_space: bool = True,
    ignore_punctuation: bool = False,
    ignore_articles: bool = False,
    log_malformed: LogMalformed | None = None,
    **_: Any,
) -> list[float | None]:
    """1 for a text that is the reference's, else 0. Both are compared in Unicode's composed form (NFC).

    Args:
        answer: N texts or whole numbers, or lists of such, each of which is right. `solution` is read without it.
        answer_tag: only what stands in the last `<answer_tag>`; None is the whole completion.
        ignore_case: as `str.casefold` has it.
        ignore_space: white space around a text, and how much of it there is between words.
        ignore_punctuation: characters that Unicode calls punctuation, as in SQuAD. Not for numbers: `-5` is `5` then.
        ignore_articles: a, an and the, as in SQuAD.

    Returns:
        N scores, 0 or 1; None where the reference is null: a problem of another data set.

    Raises:
        ValueError: there is no reference, or nothing is left of one, so that an empty answer would be right.
    """
    ignored = ignore_case, ignore_space, ignore_punctuation, ignore_articles
    references = answer if answer is not None else solution
    if references is None:
        raise ValueError("exact_match needs a dataset column `answer` or `solution`")
    accepted = [
        _accepted(place, each, ignored) for place, each in enumerate(column("answer", references, len(completions)))
    ]

    def score(place: int, completion: str) -> float | None:
        right = accepted[place]
        if right is None:
            return None
        return float(_normal(tagged(completion, answer_tag), *ignored) in right)

    return scores("exact_match", completions, score, log_malformed)


def _accepted(place: int, reference: Any, ignored: tuple[bool, bool, bool, bool]) -> set[str] | None:
    if reference is None:
        return None
    several = reference if isinstance(reference, Sequence) and not isinstance(reference, str | bytes) else [reference]
    found = set()
    for each in several:
        if not isinstance(each, str | Integral) or isinstance(each, bool):
            raise ValueError(
                f"sample {place}: the answer {each!r:.80} is a {type(each).__name__}: give a text, a whole number, or "
                f"a list of them"
            )
        found.add(_normal(str(each), *ignored))
    if not found or not all(found):
        raise ValueError(
            f"sample {place}: nothing is left of the answer {reference!r:.80}: fill it in, or make it null"
        )
    return found


def _normal(text: str, case: bool, space: bool, punctuation: bool, articles: bool) -> str:
    text = unicodedata.normalize("NFC", text)
    if case:
        text = text.casefold()
    if punctuation:
        text = "".join(sign for sign in text if not unicodedata.category(sign).startswith("P"))
    if articles:
        text = _ARTICLE.sub(" ", text)
    return " ".join(text.split()) if space else text


def regex_match(
    completions: list[str],
    pattern: str | Sequence[str | None],
    answer_tag: str | None = None,
    whole: bool = True,
    ignore_case: bool = False,
    log_malformed: LogMalformed | None = None,
    **_: Any,
) -> list[float | None]:
    """1 for a text that a pattern of Python's `re` describes, else 0.

    A pattern can take forever on some texts (`(a+)+b`). The call is interrupted by nothing but the deadline of the
    scoring process: such a sample is not scored, with the kind `timeout`.

    Args:
        pattern: of all samples, as an option, or a dataset column of N.
        answer_tag: only what stands in the last `<answer_tag>`; None is the whole completion.
        whole: the pattern describes the whole text; without it, it is found somewhere in it.

    Returns:
        N scores, 0 or 1; None where the column has null.

    Raises:
        ValueError: it is no pattern, or one that the empty text matches, so that saying nothing would be paid.
    """
    several = [pattern] * len(completions) if isinstance(pattern, str) else column("pattern", pattern, len(completions))
    compiled = [None if each is None else _compiled(each, whole, ignore_case) for each in several]

    def score(place: int, completion: str) -> float | None:
        one = compiled[place]
        if one is None:
            return None
        text = tagged(completion, answer_tag)
        return float((one.fullmatch(text) if whole else one.search(text)) is not None)

    return scores("regex_match", completions, score, log_malformed)


@lru_cache(maxsize=1024)
def _compiled(pattern: str, whole: bool, ignore_case: bool) -> re.Pattern[str]:
    if not isinstance(pattern, str):
        raise ValueError(f"the pattern {pattern!r:.80} is a {type(pattern).__name__}: give a text")
    try:
        one = re.compile(pattern, re.IGNORECASE if ignore_case else 0)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{pattern!r:.80} is no pattern of Python's re: {error}") from None
    if one.fullmatch("") if whole else one.search(""):
        raise ValueError(f"the pattern {pattern!r:.80} matches the empty text, so that saying nothing would be paid")
    return one
