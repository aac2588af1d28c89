r"""An answer without its markup, and the last formula or number of a sentence.

Markup says how an answer looks, not what it is: `**73**`, `<answer>73</answer>` and `$73$` all say 73.
"""

from __future__ import annotations

import re

LENGTH_LIMIT = 1000
"""Characters of an answer."""

_HTML = re.compile(r"</?(?:answer|b|i|u|em|strong|p|span|div|code|br|sup)\b[^<>]{0,80}>", re.IGNORECASE)
_PAIRS = (("**", "**"), ("__", "__"), ("```", "```"), ("`", "`"), ("*", "*"), ("_", "_"))
_MATHEMATICS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_FONT = re.compile(r"\\(?:text|textrm|textbf|textit|mathrm|mathbf|mathit|bm|boldsymbol|mbox|displaystyle)\s*\{")
_SEGMENT = re.compile(
    r"\$\$([^$]{1,500})\$\$|\$([^$\n]{1,500})\$|\\\(([^\n]{1,500}?)\\\)|\\\[(.{1,500}?)\\\]", re.DOTALL
)
_NUMBER = re.compile(
    "[-\N{MINUS SIGN}]?" r"(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?(?:\s*/\s*\d+)?(?:\s*(?:\\?%|°))?"
)


def bare(text: str) -> str:
    """Without what surrounds an answer to make it stand out: emphasis, tags, formula signs, fonts, a full stop."""
    if len(text) > LENGTH_LIMIT:  # it will be refused
        return text
    text = _HTML.sub("", text)
    while True:
        before = text
        text = text.strip().rstrip(".,;").strip() if not text.endswith(("...", r"\.", r"\,", r"\;")) else text.strip()
        for opening, closing in (*_PAIRS, *_MATHEMATICS):
            inside = text[len(opening) : len(text) - len(closing)]
            surrounded = inside and text.startswith(opening) and text.endswith(closing)
            if surrounded and opening not in inside and closing not in inside:
                text = inside
        text = re.sub(r"^(?:\*{1,3}|#{1,6}|>)\s+|^\*{2,}|(?<!\*)\*{2,}$", "", text)
        font = _FONT.match(text)
        if font and closing_brace(text, font.end() - 1) == len(text) - 1:
            text = text[font.end() : -1]
        if text == before:
            return text


def closing_brace(text: str, opening: int) -> int | None:
    r"""Place of the brace that closes the one at `opening`; `\{` and `\}` are signs, not braces."""
    depth = 0
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, opening):
        depth += (match[0] == "{") - (match[0] == "}")
        if depth == 0 and match[0] == "}":
            return match.start()
    return None


def last_expression(text: str, formulas_first: bool) -> tuple[str, int, int] | None:
    """The last formula or, without one, the last number; with its place in the text.

    Args:
        formulas_first: also where a number follows the last formula.
    """
    segments = list(_SEGMENT.finditer(text))
    numbers = list(_NUMBER.finditer(text, segments[-1].end() if segments else 0))
    if numbers and not (formulas_first and segments):
        return bare(numbers[-1][0]), numbers[-1].start(), numbers[-1].end()
    if segments:
        return bare(next(filter(None, segments[-1].groups()))), segments[-1].start(), segments[-1].end()
    return None
