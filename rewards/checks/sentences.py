"""Words, sentences and paragraphs of a text, as IFEval counts them.

IFEval takes sentences and words in capitals from NLTK, whose models are a download. Here a sentence ends with `.`, `!`,
`?` or `…` before white space or the end, unless the full stop is that of an abbreviation, an initial or the number of a
list; and a word is letters and digits with hyphens and apostrophes in between.
"""

from __future__ import annotations

import re

_AROUND = " \n\t*-_#\"'”\u2019)]"
"""Signs that are no sentence by themselves."""
_END = re.compile(r"(?<![.!?…])[.!?…]+[\"'”\u2019)\]*_]*(?=\s|$)")
_NUMBER = re.compile(r"\(?\d{1,3}")
_INITIALS = re.compile(r"\(?(?:[A-Za-z]\.)*[A-Za-z]")
_TITLES = {"mr", "mrs", "ms", "dr", "prof", "st", "gen", "col", "lt", "sgt", "capt", "rev", "hon", "fig", "no", "vol"}
_MONTHS = {"jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec"}
_ABBREVIATIONS = {*_TITLES, *_MONTHS, "vs", "e.g", "i.e", "cf", "approx", "dept", "est"}
_NOT_LAST = {"etc", "inc", "ltd", "co", "corp", "jr", "sr", "a.m", "p.m", "u.s", "u.k", "ph.d", "al"}
"""Abbreviations behind which a capital letter begins a new sentence."""
_WORD = re.compile(r"\w+")
_TOKEN = re.compile(r"\w+(?:[-'\u2019.&]\w+)*")


def sentences(text: str) -> int:
    """How many there are; what stands behind the last end is one."""
    count, start = 0, 0
    for match in _END.finditer(text):
        if match[0][0] == "." and not match[0].startswith("..") and _no_end(text, start, match):
            continue
        if text[start : match.end()].strip(_AROUND + ".!?…"):
            count += 1
        start = match.end()
    return count + bool(text[start:].strip(_AROUND))


def _no_end(text: str, start: int, match: re.Match[str]) -> bool:
    before = text[max(start, match.start() - 40) : match.start()].split()
    word = before[-1] if before else ""
    following = text[match.end() : match.end() + 40].lstrip()
    if _NUMBER.fullmatch(word):
        line = text[text.rfind("\n", 0, match.start()) + 1 : match.start()].strip()
        return line == word and bool(following)  # "1." at the beginning of a line
    known = word.strip("(\"'“\u2018").lower()
    if known in _NOT_LAST:
        return not following[:1].isupper() and bool(following)
    if known in _ABBREVIATIONS:
        return bool(following)
    return bool(_INITIALS.fullmatch(word)) and word.strip("(") != "I" and bool(following)


def words(text: str) -> int:
    """Runs of letters, digits and underscores, as IFEval counts words."""
    return len(_WORD.findall(text))


def capital_words(text: str) -> int:
    """Words whose letters are all capitals; one with hyphens or apostrophes is one."""
    return sum(word.isupper() for word in _TOKEN.findall(text))
