"""Text of models, data and foreign exceptions, made fit for a terminal and for a log."""

from __future__ import annotations

import re

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, of which escape sequences are made; marks that turn the writing direction; halves of surrogate
pairs, which no encoding can write. Line feeds and tabs are harmless."""


def printable(text: str) -> str:
    r"""The text, with `\x1b` in the place of an escape character and so on: it moves no cursor and can be written."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
