"""Tags in their order, each once: `<think>...</think><answer>...</answer>`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rewards.checks.answers import scores


def xml_format(
    completions: list[str],
    tags: Sequence[str] = ("think", "answer"),
    text_around: bool = False,
    least_characters: int = 1,
    **_: Any,
) -> list[float | None]:
    """1 where a text is the tags in this order, each opened and closed once, none within another, else 0.

    Args:
        tags: their names.
        text_around: other text may stand before, between and behind them; without it only white space may.
        least_characters: that the content of each has at least, white space around it not counted.

    Raises:
        ValueError: `tags` names none or one twice, or `least_characters` is less than 0.
    """
    names = [tags] if isinstance(tags, str) else list(tags)
    if not names or len(set(names)) < len(names) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"tags={tags!r} of xml_format: give one or more different names")
    if least_characters < 0:
        raise ValueError(f"least_characters={least_characters} of xml_format: choose 0 or more")

    def score(_place: int, completion: str) -> float:
        return float(_has(completion, names, text_around, least_characters))

    return scores("xml_format", completions, score, None)


def _has(text: str, names: list[str], text_around: bool, least: int) -> bool:
    end = 0
    for name in names:
        opening, closing = f"<{name}>", f"</{name}>"
        if text.count(opening) != 1 or text.count(closing) != 1:
            return False
        start, stop = text.find(opening), text.find(closing)
        content = text[start + len(opening) : stop].strip()
        if not end <= start < stop or len(content) < least or not (text_around or not text[end:start].strip()):
            return False
        end = stop + len(closing)
    return text_around or not text[end:].strip()
