"""Answers that are words: names, choices, days, dates and times, which are compared by their letters, and numbers."""

from __future__ import annotations

import re

_MONTHS = (
    "Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?|"
    "Nov(?:ember)?|Dec(?:ember)?"
)
_HALF = r"\s*(?:\\text\s*\{\s*)?[AaPp]\.?\s?[Mm]\.?\s*\}?"
_DATE = re.compile(r"\d{4}([-/.])\d{1,2}\1\d{1,2}|\d{1,2}([-/.])\d{1,2}\2\d{2,4}|\d{1,2}:\d\d:\d\d")
_TIME = re.compile(rf"\d{{1,2}}:[0-5]\d(?:{_HALF})?|\d{{1,2}}{_HALF}")
_NAMED_DATE = re.compile(
    rf"(?:{_MONTHS})\.?\s+\d{{1,2}}(?:st|nd|rd|th)?(?:[,\s]\s*\d{{4}})?|\d{{1,2}}\s+(?:{_MONTHS})(?:\s+\d{{4}})?"
    rf"|(?:{_MONTHS})\s+\d{{4}}",
    re.IGNORECASE,
)
_PROSE = re.compile(
    r"[A-Za-z]{2,}(?:[ -][A-Za-z]+)+|[A-Za-z]{3,}|\(?[A-J]\)?|\\(?:text|mathrm|mbox|textrm)\s*\{[^{}]*\}"
)
_FONT = re.compile(r"\\(?:text|mathrm|mbox|textrm|textbf|mathbf|textit|mathit)\s*\{([^{}]*)\}")
_CHOICE = re.compile(r"\(?([A-J])(?:(?:\)|\.|:)(?:\\?\s+(.*))?)?", re.DOTALL)
_CHOICE_AT_ALL = re.compile(r"\b[A-J]\b|\b(?:or|and|not|nor)\b")
_NUMBERS = {
    **{"zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9},
    **{"ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16},
    **{"seventeen": 17, "eighteen": 18, "nineteen": 19},
}
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_MATHEMATICS = frozenset(("infinity", "infty", "pi"))


def is_date(text: str) -> bool:
    """Whether mathematics would read a date as a subtraction or a division."""
    return bool(_DATE.fullmatch(text))


def is_time(text: str) -> bool:
    return bool(_TIME.fullmatch(text))


def is_words(text: str) -> bool:
    """Whether an answer is compared by its letters."""
    named = _NAMED_DATE.fullmatch(words(text))
    prose = _PROSE.fullmatch(text) and text.casefold() not in _MATHEMATICS and number_in(text) is None
    return bool(is_date(text) or is_time(text) or named or prose)


def words(text: str) -> str:
    """Text for literal comparison. Only what cannot change a mathematical meaning is dropped."""
    text = _FONT.sub(r"\1", text.strip("$. \n"))
    return re.sub(r"\s*([,;=])\s*", r"\1", " ".join(text.split()))


def letters(text: str) -> str:
    """Text for comparison of words: without capitals, an article and the brackets of a choice."""
    text = words(text)
    choice = _CHOICE.fullmatch(text)
    if choice and not _CHOICE_AT_ALL.search(choice[2] or ""):
        return choice[1].casefold()
    text = re.sub(r"(\d)\s*([ap])\.?\s?m\b\.?", r"\1\2m", text.strip("().").casefold())
    text = re.sub(r"\bsolutions\b", "solution", text)
    return re.sub(r"^(?:an?|the)\s+(?=\w{2})", "", text)


def number_in(text: str) -> int | None:
    """Of "five" and "twenty-one"."""
    parts = re.split(r"[\s-]+", words(text).casefold())
    if len(parts) == 1:
        return _NUMBERS.get(parts[0], _TENS.get(parts[0]))
    if len(parts) == 2 and parts[0] in _TENS and 0 < _NUMBERS.get(parts[1], 0) < 10:
        return _TENS[parts[0]] + _NUMBERS[parts[1]]
    return None
