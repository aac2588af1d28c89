"""A text in parts that a model reads: its sentences, and parts of long ones (LongAlign, arXiv 2410.11817)."""

from __future__ import annotations

import re
from collections.abc import Callable

SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|\n+")


def segments(text: str, fits: Callable[[str], bool]) -> list[str]:
    """The text itself if the encoder reads it whole; else its sentences, and parts of those that are too long.

    Raises:
        ValueError: a single word is too long.
    """
    return [text] if fits(text) else sentences(text, fits)


def sentences(text: str, fits: Callable[[str], bool]) -> list[str]:
    """A text's sentences, and parts of those that are too long; none of a text without a word.

    Raises:
        ValueError: a single word is too long.
    """
    found: list[str] = []
    for sentence in SENTENCE_END.split(text):
        part = ""
        for word in sentence.split():
            longer = f"{part} {word}" if part else word
            if part and not fits(longer):
                found.append(part)
                longer = word
            if not fits(longer):
                raise ValueError(f"the text encoder cannot read the word {word[:80]!r}: it has too many tokens")
            part = longer
        if part:
            found.append(part)
    return found
