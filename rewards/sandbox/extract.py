"""The program in a completion."""

from __future__ import annotations

import re

_FENCE = re.compile(r"^[ \t]{0,3}(`{3,}|~{3,})[ \t]*([^\n`]*)\n(.*?)(?:^[ \t]{0,3}\1[`~]*[ \t]*$|\Z)", re.M | re.S)
_PYTHON = ("python", "python3", "py", "python-repl")


def code_of(completion: str) -> str:
    """The content of the last fenced block that is marked as Python; without one, of the last that is not marked at
    all; without any fence, the whole text. A last block that is not closed goes on to the end of the text. Blocks of
    other languages are not code: a text with such blocks alone has none, which is an empty text."""
    blocks = [(mark.strip().lower().split(" ")[0], content) for _, mark, content in _FENCE.findall(completion)]
    if not blocks:
        return completion
    for marks in (_PYTHON, ("",)):
        if found := [content for mark, content in blocks if mark in marks]:
            return found[-1]
    return ""
