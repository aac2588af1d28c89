"""One spelling for what may be written in many: signs, spaces, and numerals that mathematics would read as formulas."""

from __future__ import annotations

import re
import unicodedata

_SIGNS = {
    "\N{MINUS SIGN}": "-",
    "\N{MULTIPLICATION SIGN}": r"\times ",
    "·⋅": r"\cdot ",
    "÷": r"\div ",
    "∞": r"\infty ",
    "°º": r"^\circ ",
    "≤⩽": r"\le ",
    "≥⩾": r"\ge ",
    "≠": r"\ne ",
    "≈": r"\approx ",
    "≡": r"\equiv ",
    "\N{UNION}": r"\cup ",
    "∩": r"\cap ",
    "∈": r"\in ",
    "±": r"\pm ",
    "∅": r"\emptyset ",
    "…⋯": r"\ldots ",
    "√": r"\sqrt ",
    "\N{PRIME}\N{RIGHT SINGLE QUOTATION MARK}": "'",
}
_GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau phi chi psi omega"
_SIGNS |= {
    unicodedata.lookup(f"GREEK SMALL LETTER {name.replace('lambda', 'lamda')}"): rf"\{name} " for name in _GREEK.split()
}
_LATEX = {ord(sign): latex for signs, latex in _SIGNS.items() for sign in signs}
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")
_FRACTION_SLASH = "\N{FRACTION SLASH}"
_SPACES = re.compile(
    r"(?<!\\)\\(?:[,;:! ]|(?:quad|qquad|thinspace|enspace|displaystyle|limits)(?![A-Za-z]))|\\[hm]space\{[^{}]*\}|~"
)
_NAMED = re.compile(
    r"(?<![A-Za-z\\])(?:arc(?:sin|cos|tan|cot|sec|csc)|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|max|"
    r"min(?!\s*$)|gcd|lcm|det|alpha|beta|gamma|delta|theta|lambda|sigma|omega|phi|pi|infty)(?![A-Za-z])"
)
_UNSEEN = re.compile(
    r"\\(?:text)?color\s*\{[^{}]*\}|\\[hv]?phantom\s*\{[^{}]*\}|"
    r"\\(?:checkmark|scriptstyle|textstyle|normalsize|tiny|small|large|"
    r"Large|LARGE|huge|Huge)(?![a-z])"
)
_UNIT_POWER = re.compile(r"\\(?:text|mathrm|mbox)\s*\{([^{}]*[A-Za-z])\s*\^\s*\{?(-?\d)\}?\s*\}")
_UNIT_FRACTION = re.compile(
    r"\\frac\s*\{\s*\\(?:text|mathrm)\s*\{([^{}]+)\}\s*\}\s*\{\s*\\(?:text|mathrm)\s*\{([^{}]+)\}\s*\}"
)
_ANGLE = re.compile(r"^\s*m?\s*\\(?:measured)?angle\s*\{?\s*[A-Z]{1,3}\s*\}?\s*=")
_WRAPPED = re.compile(
    r"\\(?:mathbf|mathit|bm|boldsymbol|mathrm|textbf|text|textrm|mbox|underline|emph)\s*\{\s*([-\d.,/]+)\s*\}"
)
_OPERATOR = re.compile(r"\\(?:text|textrm|mbox|mathrm)\s*\{\s*(and|or)\s*\}|(?<![A-Za-z\\])(and|or)(?![A-Za-z])")
_SHORT_FRACTION = re.compile(r"\\(frac|binom)\s*(\d)\s*(\d)(?!\d)")
_SHORT_ROOT = re.compile(r"\\sqrt\s*(\d+(?:\.\d+)?|[a-z])")
_SPACED = re.compile(r"(?<![\d.,^_{/])(\d{1,3}(?: +\d{3})+)(?![\d,/]| +\d)")
_COMMAS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_SCIENTIFIC = re.compile(r"(?<![A-Za-z\d.\\])(\d+(?:\.\d*)?|\.\d+)[eE]\+?(-?\d+)(?![\d.A-Za-z])")
_MIXED = re.compile(
    r"(?<![\d./^_{}\\A-Za-z])(\d+)(?:\s+(\d+)\s*/\s*(\d+)|\s*\\frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\})(?!\d|\.\d)"
)
_REPEATING = re.compile(r"(?<![\d.])(\d*)\.(\d*)\\overline\s*\{\s*(\d+)\s*\}(?!\d)")
_MULTIPLES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_MULTIPLE = re.compile(rf"(?<=\d)\s*(?:\\text\{{\s*)?({'|'.join(_MULTIPLES)})\b\s*\}}?(?![A-Za-z])")


def plain_spelling(text: str) -> str:
    """The same in one spelling of signs, spaces and numerals."""
    text = "".join(_fraction_sign(sign) for sign in text)
    text = re.sub(r"\\text\s*\{\s*¢\s*\}|\\?¢", r"\\text{cents}", text)
    text = re.sub(r"\\langle(?![a-z])", "\N{MATHEMATICAL LEFT ANGLE BRACKET}", text)
    text = re.sub(r"\\rangle(?![a-z])", "\N{MATHEMATICAL RIGHT ANGLE BRACKET}", text)
    text = _SUPERSCRIPT.sub(_power, text).translate(_LATEX)
    text = unicodedata.normalize("NFKC", text)
    text = re.sub(r"\\[dtc](frac|binom)(?![a-z])", r"\\\1", text.replace("{,}", ",").replace("**", "^"))
    text = re.sub(r"\\m?(?:left|right)(?![a-z])\s*\.?|\\(?:big|Big|bigg|Bigg)[lr]?(?![a-z])", "", text)
    text = _UNSEEN.sub(" ", _SPACES.sub(" ", text)).replace(r"\varnothing", r"\emptyset")
    text = re.sub(r"\\colon(?![a-z])", ":", text)
    text = re.sub(r"\\pi\s*(?=\()", r"\\pi \\cdot ", text)  # \pi(2) is no function of 2
    text = _UNIT_FRACTION.sub(r"\\text{\1/\2}", _UNIT_POWER.sub(r"\\text{\1}^{\2}", text))
    text = _ANGLE.sub("", text)
    text = _WRAPPED.sub(r"\1", text)
    text = _OPERATOR.sub(",", text)
    text = re.sub(r",\s*,", ",", text)
    text = _NAMED.sub(lambda match: rf"\{match[0]} ", text).replace("infinity", r"\infty ")
    text = _round_to_curly(text)
    text = _SHORT_FRACTION.sub(r"\\\1{\2}{\3}", text)
    text = _SHORT_ROOT.sub(r"\\sqrt{\1}", text)
    text = _numerals(text)
    return re.sub(r"\s+", " ", text).strip()


def _fraction_sign(sign: str) -> str:
    """`½` as ` 1/2 `, with which "3½" is the mixed number that it is."""
    above, slash, below = unicodedata.normalize("NFKC", sign).partition(_FRACTION_SLASH)
    return f" {above}/{below} " if slash and above and below else sign


def _power(match: re.Match[str]) -> str:
    return f"^{{{unicodedata.normalize('NFKC', match[0]).translate(_LATEX)}}}"


def _round_to_curly(text: str) -> str:
    r"""`\sqrt(...)` and `^(...)` with the braces that the grammar wants."""
    for match in reversed(list(re.finditer(r"(\\sqrt|\^)\s*\(", text))):
        depth = 0
        for place in range(match.end() - 1, len(text)):
            depth += (text[place] == "(") - (text[place] == ")")
            if depth == 0:
                inside = text[match.end() : place]
                text = f"{text[: match.start()]}{match[1]}{{{inside}}}{text[place + 1 :]}"
                break
    return text


def _numerals(text: str) -> str:
    text = _SPACED.sub(lambda match: match[0].replace(" ", ""), text)
    bracketed, list_of = re.search(r"[(\[]|\\\{", text), re.search(r",\s", text)
    others = re.sub(r",\s", "", _COMMAS.sub("", text)).count(",")
    zeros = re.search(r",0\d\d(?!\d)", text)  # "000" is no number by itself
    if (not bracketed and not others) or (bracketed and (list_of or zeros) and not others):
        text = _COMMAS.sub(lambda match: match[0].replace(",", ""), text)
    text = _SCIENTIFIC.sub(r"\1 \\times 10^{\2}", text)
    text = _MULTIPLE.sub(lambda match: rf" \times 10^{{{_MULTIPLES[match[1]]}}} ", text)
    text = _REPEATING.sub(_as_fraction, text)
    return _MIXED.sub(lambda m: rf"({m[1]}+\frac{{{m[2] or m[4]}}}{{{m[3] or m[5]}}})", text)


def _as_fraction(match: re.Match[str]) -> str:
    """A repeating decimal: 0.1666..., written 0.1 with 6 under a line, is (16 - 1) / 90."""
    whole, start, period = match.groups()
    nines = (10 ** len(period) - 1) * 10 ** len(start)
    return rf"\frac{{{int(whole + start + period) - int(whole + start or '0')}}}{{{nines}}}"
