r"""What is written in an answer: a value, and what stands beside it, such as a unit, a base or a modulus.

math-verify's grammar reads a formula to its end or not at all, but it reads some notations as something else: "3 1/2"
as (3 + 1) / 2, "1 000 000" as a product, `1.6e-19` with Euler's number, a word as a product of its letters, and it
drops dots, primes, degrees and bases. Here every such notation is either rewritten so that the grammar reads what is
meant, or taken off and compared by itself, or refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from rewards.mathematics.spelling import plain_spelling
from rewards.mathematics.units import without_unit
from rewards.mathematics.words import number_in


class Unreadable(ValueError):
    """What is wrong with the text; it says "it ..."."""


@dataclass(frozen=True)
class Written:
    """An answer, read as far as that needs no algebra."""

    parts: tuple[str | Written, ...]
    """LaTeX formulas, which math-verify's grammar reads to their end."""
    brackets: str = ""
    """The outer ones, such as `()` or `[)`; `{}` of a set; `:` of a ratio of three and more, whose parts are divided by
    the first; empty of a list, and of a single formula."""
    unit: str | None = None
    """Percent, degree and currency are units."""
    base: str | None = None
    """Of a number, as it is written."""
    modulus: str | None = None
    name: str = ""
    """What a tuple, set or interval is said to be: "x" in `x \\in [0,1)`."""
    joined: str = ""
    """What is between inequalities: "and" or "or"."""

    def formulas(self) -> list[str]:
        """All of them, those of inner parts and the modulus included."""
        nested = [part.formulas() if isinstance(part, Written) else [part] for part in self.parts]
        return [formula for each in nested for formula in each] + ([self.modulus] if self.modulus else [])


_RATIO = re.compile(r"[\d.]+(?:\s*:\s*[\d.]+){2,}")
_RATIO_IN_WORDS = re.compile(r"([\d.]+)\s*(?:\\text\s*\{\s*to\s*\}|to)\s*([\d.]+)")
_JOINED = re.compile(r"(?<![A-Za-z\\])(and|or)(?![A-Za-z])|\\(land|lor|wedge|vee)(?![a-z])")
_INEQUALITY = re.compile(r"[<>]|\\(?:l|g|n)(?:e|t|eq|eqslant)(?![a-z])")
_INNER_DEGREE = re.compile(r"(\d+(?:\.\d+)?)\s*\^\s*\{?\s*\\(?:circ|degree)\b\s*\}?")
_BASE = re.compile(
    r"^\(?(\d[0-9A-Za-z]*|[0-9A-Fa-f]+(?=\)?\s*_\s*\{?\s*16))\)?\s*_\s*(?:\{\s*\(?(?:\\text\{)?(\w+)\)?\}*|(\w+))$"
)
_CONGRUENCE = re.compile(
    r"^(?:(.*)(?:\\equiv|\\cong)(.*?)(?:\\[pb]?mod|\(?\s*(?:\\text\{)?\s*(?:\\[pb]?mod|mod)\b\s*\}?)|"
    r"(.*?)(?:\\pmod|\(\s*(?:\\text\{)?\s*(?:\\[pb]?mod|mod)\s*\}?))(.*)$",
    re.DOTALL,
)
_ANGLES = "\N{MATHEMATICAL LEFT ANGLE BRACKET}\N{MATHEMATICAL RIGHT ANGLE BRACKET}"
_BRACKETS = ("()", "(]", "[]", "[)", r"\{\}", _ANGLES)
_OPENING, _CLOSING = "([{" + _ANGLES[0], ")]}" + _ANGLES[1]
_DESCRIBED = re.compile(
    r"^\\\{\s*(\w)\s*(?:\\in\s*\\mathbb\s*\{?\s*R\s*\}?\s*)?(?:\\mid(?![a-z])|:|\|)(.*[<>].*|.*\\(?:le|ge|lt|gt|leq|geq)\b.*)\\\}$",
    re.DOTALL,
)
_NAME = re.compile(r"^(\w|\(\s*\w(?:,\s*\w)+\s*\))\s*(?:\\in(?![a-z])|=)\s*(?=[(\[]|\\\{)")
_REFUSED = (
    (re.compile(r"\\[lcdv]?dots|\.\.|\\dots[bcimo]"), "it leaves something out (dots)"),
    (re.compile(r"['\"]|\\prime"), "it has a prime, or minutes of arc"),
    (re.compile(r"\d\.\d+\.|\.\s*\d+\s*\.\d"), "it has a numeral with two points"),
    (re.compile(r"(?<![_^])\d\s+\.?\d"), "it has two numbers side by side"),
    (re.compile(r"\\equiv|\\cong"), "it has a congruence without a modulus"),
    (re.compile(r"\\infty\s*\]|\[\s*[-+]?\s*\\infty"), "it has an interval that is closed at infinity"),
    (re.compile(r"%"), "it has a percent sign inside"),
    (re.compile(r"\\(?:text|mbox|textrm)\b"), "it has words inside a formula"),
    (re.compile(r"[^:]*:[^:]*:"), "it has two colons"),
    (re.compile(r"(?<![A-Za-z\\])(?<!begin\{)(?<!end\{)(?<!operatorname\{)[A-Za-z]{4,}"), "it has words"),
    (re.compile(r"(?<![A-Za-z\\{])[A-Za-z]{2,}\s+[A-Za-z\d]"), "it has words"),
    (re.compile(r"mod(?![A-Za-z])"), "it has a remainder or a modulus that is not behind a congruence"),
    (re.compile(r"\\[()\[\]]|\$"), "it has a formula among other signs"),
    (re.compile(r"[^\x20-\x7e]"), "it has a sign that no rule reads"),
)  # fmt: skip


def read(text: str) -> Written:
    """Read an answer.

    Raises:
        Unreadable: it holds something that would be read as something else, or nothing.
    """
    joined = {next(filter(None, match.groups())) for match in _JOINED.finditer(text)}
    text = plain_spelling(text)
    if not text:
        raise Unreadable("it is empty")
    congruence = _CONGRUENCE.match(text)
    if congruence:
        modulus = _formula(congruence[4].strip(" (){}"))
        if "," in modulus or ";" in modulus:
            raise Unreadable("it has a list behind its modulus")
        if re.fullmatch(r"-.*|0+", modulus):
            raise Unreadable("its modulus is not positive")
        sides = [_formula(side) for side in congruence.groups()[:3] if side and side.strip()]
        return Written(tuple(sides), modulus=modulus)
    base = _BASE.match(text)
    if base:
        digits = base[1].lstrip("0").casefold()
        name = base[2] or base[3]
        return Written((digits or "0",), base=str(number_in(name) or name.casefold()))
    text, unit = without_unit(text)
    text = _RATIO_IN_WORDS.sub(r"\1:\2", text) if _RATIO_IN_WORDS.fullmatch(text) else text
    written = _structure(text)
    word = "or" if joined <= {"or", "lor", "vee"} else "and"
    return replace(written, unit=unit, joined=word if joined and _INEQUALITY.search(text) else "")


def _structure(text: str) -> Written:
    """Lists, tuples, sets and intervals; what stands in them is a formula or one of these again."""
    if _RATIO.fullmatch(text):
        terms = [term.strip() for term in text.split(":")]
        return Written(tuple(_formula(rf"\frac{{{term}}}{{{terms[0]}}}") for term in terms), ":")
    described = _DESCRIBED.match(text)
    if described:
        return _structure(described[2].strip())
    named = _NAME.match(text)
    if named and _is_structure(text[named.end() :]):
        written = _structure(text[named.end() :])
        return Written(written.parts, written.brackets, name=re.sub(r"\s", "", named[1]))
    brackets = _outer(text)
    if brackets == r"\{\}" and not _inside(text):
        return Written((r"\emptyset",))
    inside = text if brackets is None else _inside(text)
    parts = _split(inside)
    if brackets == r"\{\}":
        parts = [sign for part in parts for sign in _plus_and_minus(part)]
    if brackets and _is_structure(text):
        return Written(tuple(_element(part) for part in parts), brackets.replace("\\", ""))
    if brackets in ("()", "[]"):
        return _structure(inside)
    parts = [sign for part in parts for sign in _plus_and_minus(part)]
    return Written(tuple(_element(part) for part in parts))


def _element(text: str) -> str | Written:
    return _structure(text) if _is_structure(text) else _formula(text)


def _is_structure(text: str) -> bool:
    brackets = _outer(text)
    return brackets == r"\{\}" or (brackets is not None and len(_split(_inside(text))) > 1)


def _formula(text: str) -> str:
    """A formula that the grammar reads as what it is."""
    text = text.strip()
    if not text:
        raise Unreadable("a part of it is empty")
    text = _INNER_DEGREE.sub(r"(\\frac{\1 \\pi}{180})", text)
    for pattern, reason in _REFUSED:
        if pattern.search(text):
            raise Unreadable(reason)
    ratio = re.fullmatch(r"([\d.]+)\s*:\s*([\d.]+)", text)
    return rf"\frac{{{ratio[1]}}}{{{ratio[2]}}}" if ratio else text


def _outer(text: str) -> str | None:
    """The brackets around the whole text, such as `[)`."""
    for brackets in _BRACKETS:
        opening, closing = brackets[: len(brackets) // 2], brackets[len(brackets) // 2 :]
        if text.startswith(opening) and text.endswith(closing) and _closes_last(text):
            return brackets
    return None


def _inside(text: str) -> str:
    return text[1 + text.startswith("\\") : len(text) - 1 - text.endswith(r"\}")].strip()


def _closes_last(text: str) -> bool:
    """Whether the first bracket is closed by the last sign and by none before it."""
    depth = 0
    for place in range(text.startswith("\\"), len(text)):
        depth += (text[place] in _OPENING) - (text[place] in _CLOSING)
        if depth == 0:
            return place == len(text) - 1
    return False


def _split(text: str) -> list[str]:
    """At the commas and semicolons outside of brackets."""
    parts, depth, start = [], 0, 0
    for place, sign in enumerate(text):
        depth += (sign in _OPENING) - (sign in _CLOSING)
        if depth == 0 and sign in ",;":
            parts.append(text[start:place].strip())
            start = place + 1
    return [*parts, text[start:].strip()]


def _plus_and_minus(text: str) -> tuple[str, ...]:
    if r"\pm" not in text:
        return (text,)
    if text.count(r"\pm") > 1 or r"\mp" in text:
        raise Unreadable("it has more than one sign of plus or minus")
    return text.replace(r"\pm", "+"), text.replace(r"\pm", "-")
