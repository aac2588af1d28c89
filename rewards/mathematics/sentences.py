"""The formula or number with which a sentence answers: the last one, if it stands there as a value.

A number in prose is easily one that nobody gave as the answer: a bound, a guess, a step's, half of "x + 8". What stands
beside it decides, and in doubt it is none.
"""

from __future__ import annotations

import re

from rewards.mathematics.extract import LENGTH_LIMIT, bare

WINDOW = 4 * LENGTH_LIMIT
"""Characters from the end in which a formula or number is looked for."""
SENTENCE = re.compile(r"\.(?:\s|$)|\n")
_SEGMENT = re.compile(
    r"\$\$([^$]{1,500})\$\$|\$([^$\n]{1,500})\$|\\\(([^\n]{1,500}?)\\\)|\\\[(.{1,500}?)\\\]", re.DOTALL
)
_BETWEEN = re.compile(r"(?:\s|[,;]|\band\b|\bor\b|\\(?:text|quad|qquad)\b|[{}])*", re.IGNORECASE)
_NUMBER = re.compile(
    "[-\N{MINUS SIGN}]?" r"(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?(?:\s*/\s*\d+)?(?:\s*(?:\\?%|°))?"
)
_GUESS = re.compile(
    r"\b(?:or|perhaps|maybe|possibly|probably|either|neither|nor|alternatively|could|may|might|unsure|guess(?:es)?"
    r"|one of|possible|possibilities|options?|choices|candidates|unknown|none)\b|\?",
    re.IGNORECASE,
)
_NO_VALUE = re.compile(
    r"\b(?:not|cannot|never|than|least|most|between|exceeds?|below|above|under|over|almost|nearly|about|around|roughly|"
    r"approximately|except|wrong|incorrect|if|unless)\b|n't\b|\\(?:neq?|not|approx|sim)\b|≠|≈",
    re.IGNORECASE,
)
_SEVERAL = re.compile(r"\d[^\d,;]*\band\b[^\d,;]*\d", re.IGNORECASE)
_VALUE_FOLLOWS = re.compile(
    "(?<![!<>~\N{LESS-THAN OR EQUAL TO}\N{GREATER-THAN OR EQUAL TO}\N{NOT EQUAL TO}])[=:]$"
    "|^$|(?<![A-Za-z\\\\])[A-Za-z'-]{2,}[,:]?$|[€£¥₹]$"
)
"""Before a value stands nothing, an equals sign, a colon, a word, or the sign of a currency."""
_TO_OR_OF = re.compile(r"\b(?:total of|(?:equals?|up|comes|reduces|simplifies|rounds|amounts|sums|leads) to)$")
_NO_VALUE_FOLLOWS = re.compile(
    r"\b(?:of|to|by|from|minus|negative|plus|times|half|twice|double|power|root|sqrt|log|ln|sin|cos|tan|cot|sec|csc|exp"
    r"|step|page|line|problem|case|question|figure|part|chapter|equation|section|item|example|option|choice|table|row"
    r"|column|and|the|for|at|mod|modulo|base|divide|add|subtract|multiply)$",
    re.IGNORECASE,
)
_NO_VALUE_BEFORE = re.compile(
    "^[\u0300-\u036fA-Za-z_^*/+<>!|(\\[{\\\\-]|^\\.\\.|^:\\d"
    "|^\\s*[-+*/^=<>\N{MULTIPLICATION SIGN}\N{MIDDLE DOT}\N{DIVISION SIGN}_!]"
    r"|^\s*(?:x|times|hundred|thousand|million|billion|trillion|dozen|if|when|unless|squared|cubed|factorial|divided"
    r"|multiplied|plus|minus|to|or|and|more|less|fewer|halves|thirds|quarters|fourths|fifths|tenths|choose|mod|modulo"
    r"|over|out of|is|was|are|were)\b",
    re.IGNORECASE,
)


def value_of(text: str, formulas_first: bool = False) -> list[str]:
    """The last formula or number of a text, or all of its formulas where nothing else stands there; nothing where the
    sentence denies it, bounds it, offers it as a guess, or says something else with it.

    Args:
        formulas_first: also where a number follows the last formula.
    """
    text = text[-WINDOW:]
    segments = list(_SEGMENT.finditer(text))
    if len(segments) > 1 and _BETWEEN.fullmatch(_SEGMENT.sub("", text).strip(" .")):
        return [bare(_SEGMENT.sub(lambda match: f" {_inside(match)} ", text))]
    numbers = list(_NUMBER.finditer(text, segments[-1].end() if segments else 0))
    is_number = bool(numbers) and not (formulas_first and segments)
    if not is_number and not segments:
        return []
    found = numbers[-1] if is_number else segments[-1]
    begins = [0, *(match.end() for match in SENTENCE.finditer(text, 0, found.start()))]
    ends = SENTENCE.search(text, found.end())
    sentence = text[begins[-1] : ends.start() if ends else len(text)]
    before = text[begins[-1] : found.start()]
    behind = text[found.end() : ends.start() if ends else len(text)]
    if not before.strip() and len(begins) > 1 and _NUMBER.fullmatch(text[begins[-2] : begins[-1]].strip(" .\n")):
        return []  # the last line of a column of numbers
    clause = before[before.rfind(",") + 1 :] + found[0] + behind
    if _GUESS.search(sentence) or _SEVERAL.search(sentence) or _NO_VALUE.search(clause):
        return []
    before, behind = before.rstrip(" *`$_\t"), behind.lstrip("*`$_") if is_number else f" {behind.strip()}"
    other = _NO_VALUE_FOLLOWS.search(before) and not _TO_OR_OF.search(before)
    if other or not _VALUE_FOLLOWS.search(before) or _NO_VALUE_BEFORE.search(behind):
        return []
    return [bare(found[0] if is_number else _inside(found))]


def _inside(segment: re.Match[str]) -> str:
    return next(filter(None, segment.groups()))
