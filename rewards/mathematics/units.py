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
_LETTERS = re.compile(r"[A-Za-z]+\.?(?:\s*[/^ .-]\s*(?:[A-Za-z]+\.?|-?\d(?!\d)))*")
_NO_UNIT = re.compile(
    r"\b(?:not?|less|more|fewer|greater|least|most|than|or|and|if|plus|minus|times|over|squared|cubed|factorial|choose|"
    r"divided|by|dozen|half|halves|thirds|quarters|fourths|fifths|tenths|mod|modulo|otherwise|"
    r"maybe|perhaps|possibly|probably|approximately|approx|about|roughly|almost|nearly|wrong|incorrect|negative|is|are|was|root)\b",
    re.IGNORECASE,
)
_NAMES = {
    "mm": "millimeter millimetre",
    "cm": "centimeter centimetre",
    "m": "meter metre",
    "km": "kilometer kilometre",
    "in": "inch inche",
    "ft": "foot feet",
    "yd": "yard",
    "mi": "mile",
    "mg": "milligram",
    "g": "gram",
    "kg": "kilogram kilo",
    "lb": "pound",
    "oz": "ounce",
    "mL": "milliliter millilitre ml",
    "L": "liter litre l",
    "gal": "gallon",
    "s": "second sec",
    "min": "minute",
    "h": "hour hr",
    "d": "day",
    "$": "dollar usd",
    "€": "euro eur",
    "¢": "cent",
    "%": "percent",
    "°": "degree",
    "N": "newton",
    "J": "joule",
    "W": "watt",
    "V": "volt",
    "Hz": "hertz",
    "Pa": "pascal",
    "mol": "mole",
}
_SIGNS = {name: sign for sign, names in _NAMES.items() for name in names.split()}
_SPEEDS = {"mph": "mi/h", "kph": "km/h", "kmph": "km/h", "mps": "m/s"}
_POWERS = {"square": "2", "sq": "2", "squared": "2", "cubic": "3", "cu": "3", "cubed": "3"}
_CURRENCY_NAMES = {"pounds": "£", "euro": "€"}
"""What LaTeX calls their signs."""
_DEGREE = re.compile(r"\s*\^\s*\{?\s*\\(?:circ|degree)\s*\}?\s*(?:\\?(?:text|mathrm)?\s*\{?\s*([CF])\s*\}?)?$")
_PERCENT = re.compile(r"\s*(?:\\?%|\b(?:percent|pct)|\\text\{\s*percent\s*\})$")
_CURRENCY = re.compile(r"^(-?)\s*(?:\\text\{)?(\\?\$|€|£|¥|₹|\\pounds|\\euro)\}?\s*(?=[\d.])")


def without_unit(text: str) -> tuple[str, str | None]:
    """The text without its unit, and the unit."""
    currency = _CURRENCY.match(text)
    sign = currency[2].lstrip("\\") if currency else None
    sign = _CURRENCY_NAMES.get(sign, sign) if sign else None
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
        return text[: unit.start()].strip(), canonical(unit[1] + (f"^{unit[2]}" if unit[2] else "")) or sign
    return text, sign


def canonical(unit: str) -> str | None:
    """One name for a unit that has several: "mi/h" for "miles per hour". None for a radian, which is 1."""
    parts = []
    for part in re.split(r"\s*/\s*|\s+per\s+", unit.strip().replace(".", "")):
        power, name = "", ""
        for word in re.split(r"[\s^]+", part):
            if word in _POWERS or re.fullmatch(r"-?\d", word):
                power = _POWERS.get(word, word)
            else:
                name += _sign(word)
        parts.append(name + (f"^{power}" if power not in ("", "1") else ""))
    joined = "/".join(parts)
    return None if joined in ("", "radian", "rad") else _SPEEDS.get(joined, joined)


def _sign(word: str) -> str:
    """Of a short word capitals count: mg is not Mg."""
    folded = word.casefold()
    singular = folded.removesuffix("s") if len(folded) > 2 else folded
    for name in (word, folded, singular):
        if name in _SIGNS:
            return _SIGNS[name]
    return singular if len(word) > 3 else word


def _is_unit(words: str, bare: bool) -> bool:
    """Short bare words are products of variables (`xy`) unless they are signs of units."""
    if not _LETTERS.fullmatch(words.strip()):
        return False
    first = re.split(r"[ /]", words.strip())[0]
    known = _SHORT_UNIT.fullmatch(words) or _SHORT_UNIT.fullmatch(first) or len(first) > 3
    return (not bare or bool(known)) and not _NO_UNIT.search(words)
