"""The unit that stands behind a value: a word, percent, degrees, or the sign of a currency before it."""

from __future__ import annotations

import re

_TEXT = r"\\(?:text|mathrm|mbox|textrm)\s*\{([^{}]*)\}"
_POWER = r"\s*(?:\^\s*\{?\s*(-?\d)\s*\}?)?$"
_UNIT_TEXT = re.compile(_TEXT + _POWER)
_UNIT_WORDS = re.compile(rf"(?<=[\d)}}\]])\s*(?<![A-Za-z])([A-Za-z]{{2,}}(?:[ /][A-Za-z]+)*){_POWER}")
_SHORT_UNIT = re.compile(
    r"[cmdk]?m|[mk]?g|[mck]?[lL]|mi|ft|in|yd|lbs?|oz|hrs?|min|m?sec|ms|[mk]ph|(?:k?m|cm|ft)/[hs]|[br]pm|kWh?|[kMG]?Hz|"
    r"k?Pa|mol|gal|qt|pts?|sq|cu|am|pm"
)
_NO_UNIT = re.compile(
    r"\b(?:not?|less|more|fewer|greater|least|most|than|or|and|if|plus|minus|times|over|squared|cubed|factorial|choose|"
    r"divided|by|dozen|half|mod|modulo|otherwise)\b",
    re.IGNORECASE,
)
_WORDS_OF_SIGNS = {"dollars": "$", "dollar": "$", "degrees": "°", "degree": "°", "percent": "%", "euros": "€"}
_DEGREE = re.compile(r"\s*\^\s*\{?\s*\\(?:circ|degree)\s*\}?\s*(?:\\?(?:text|mathrm)?\s*\{?\s*([CF])\s*\}?)?$")
_PERCENT = re.compile(r"\s*(?:\\?%|\b(?:percent|pct)|\\text\{\s*percent\s*\})$")
_CURRENCY = re.compile(r"^(-?)\s*(?:\\text\{)?(\\?\$|€|£|¥|₹|\\pounds|\\euro)\}?\s*(?=[\d.])")


def without_unit(text: str) -> tuple[str, str | None]:
    """The text without its unit, and the unit."""
    currency = _CURRENCY.match(text)
    sign = currency[2].lstrip("\\") if currency else None
    text = currency[1] + text[currency.end() :] if currency else text
    text = text.replace(r"\$", "").strip("$ ")
    percent, degree = _PERCENT.search(text), _DEGREE.search(text)
    if percent:
        return text[: percent.start()].strip(), "%"
    if (
        degree
        and degree.start()
        and not re.search(r"\\(?:(?:arc)?(?:sin|cos|tan|cot|sec|csc)|circ|degree)", text[: degree.start()])
    ):
        return text[: degree.start()].strip(), "°" + (degree[1] or "")
    unit = _UNIT_TEXT.search(text) or _UNIT_WORDS.search(text)
    if unit and unit.start() and _is_unit(unit[1], bare=unit.re is _UNIT_WORDS):
        name = _WORDS_OF_SIGNS.get(unit[1].strip().casefold(), re.sub(r"[\s.]", "", unit[1]))
        return text[: unit.start()].strip(), name + (f"^{unit[2]}" if unit[2] else "") or sign
    return text, sign


def _is_unit(words: str, bare: bool) -> bool:
    """Short bare words are products of variables (`xy`) unless they are signs of units."""
    first = re.split(r"[ /]", words.strip())[0]
    known = _SHORT_UNIT.fullmatch(words) or _SHORT_UNIT.fullmatch(first) or len(first) > 3
    return (not bare or bool(known)) and not _NO_UNIT.search(words)
