r"""An answer without its markup.

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
