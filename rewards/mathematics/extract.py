r"""Where the answer of a completion is, and the answer without its markup.

Markup says how an answer looks, not what it is: `**73**`, `<answer>73</answer>` and `$73$` all say 73.
"""

from __future__ import annotations

import re

LENGTH_LIMIT = 1000
"""Characters of an answer."""

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_TAG = re.compile(r"<answer>", re.IGNORECASE)
_END_OF_TAG = re.compile(r"</answer>", re.IGNORECASE)
_MARK = re.compile(r"####|\b(?:answer|Answer|ANSWER)\**\s*(?:is\b|:)\s*:?")
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
_SENTENCE = re.compile(r"\.(?:\s|$)|\n")


def answers_of(completion: str) -> list[str]:
    r"""Readings of a completion's answer, the most literal first: whoever reads takes the first that can be read.

    The content of the last `\boxed{}` or `<answer>`, whichever is later, is the only one; the content of one that is
    never closed is empty. Without them: what follows the last `####`, "answer is" or "answer:", then its first
    sentence, then the last formula in that or, without one, the last number. Without those: the text, then its last
    formula or number, whichever is later.
    """
    marked = _last_marked(completion)
    if marked is not None:
        return [bare(marked)]
    marks = list(_MARK.finditer(completion))
    if not marks:
        return [bare(completion), *_last_expression(completion)]
    rest = completion[marks[-1].end() :].strip()
    sentence = _SENTENCE.split(rest, maxsplit=1)[0]
    formulas = list(_SEGMENT.finditer(sentence))
    return [bare(rest), bare(sentence), *([_content(formulas[-1])] if formulas else _last_expression(sentence))]


def reference_of(text: str) -> str:
    r"""The answer of a reference, which is bare, in a box, or behind a mark; nothing is looked for in prose."""
    return answers_of(text)[0]


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
        if font and _closing(text, font.end() - 1) == len(text) - 1:
            text = text[font.end() : -1]
        if text == before:
            return text


def _last_marked(text: str) -> str | None:
    """None without a box and a tag; what is never closed is empty."""
    found = [(match.start(), match) for pattern in (_BOX, _TAG) for match in pattern.finditer(text)]
    if not found:
        return None
    match = max(found, key=lambda each: each[0])[1]
    if match.re is _TAG:
        end = _END_OF_TAG.search(text, match.end())
        return text[match.end() : end.start()] if end else ""
    closing = _closing(text, match.end() - 1)
    return text[match.end() : closing] if closing is not None else ""


def _closing(text: str, opening: int) -> int | None:
    r"""Place of the brace that closes the one at `opening`; `\{` and `\}` are signs, not braces."""
    depth = 0
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, opening):
        depth += (match[0] == "{") - (match[0] == "}")
        if depth == 0 and match[0] == "}":
            return match.start()
    return None


def _last_expression(text: str) -> list[str]:
    """The last formula, unless a number follows it, else the last number."""
    segments = list(_SEGMENT.finditer(text))
    numbers = list(_NUMBER.finditer(text, segments[-1].end() if segments else 0))
    if numbers:
        return [bare(numbers[-1][0])]
    return [_content(segments[-1])] if segments else []


def _content(segment: re.Match[str]) -> str:
    return bare(next(filter(None, segment.groups())))
