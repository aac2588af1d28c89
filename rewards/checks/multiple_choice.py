r"""The letter of a multiple-choice question. Whoever names two has not chosen.

Letters are looked for in the first of these places that a text has, and only there: every `<answer>` and `\boxed{}`;
behind every "answer is" and "answer:"; standing alone on a line, or marked as `(B)`, `B.` or `B)` at a line's start.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from functools import lru_cache
from numbers import Integral
from typing import Any

from rewards.checks.answers import LogMalformed, Malformed, column, scores

_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_BOX = re.compile(r"\\boxed\s{0,5}\{([^{}]{0,200})")
_FONT = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s{0,5}\{")
_WORDS = re.compile(r"\banswer\**(?:\s+is\b|\s*:)\**\s*:?", re.IGNORECASE)
_MARKUP = re.compile(r"[*_`$]|\\[()]")


def multiple_choice(
    completions: list[str],
    answer: Sequence[str | int | None],
    choices: Sequence[Sequence[Any] | None] | None = None,
    letters: str = "ABCD",
    log_malformed: LogMalformed | None = None,
    **_: Any,
) -> list[float | None]:
    """1 where the only letter that a text chooses is the right one, else 0; two different letters are malformed.

    Args:
        answer: N letters (`B`, `(B)`, `b.`), or whole numbers: places among the choices from 0 on, as in MMLU.
        choices: N lists of the options' texts; their number says which letters there are.
        letters: which there are, where there is no column `choices`.

    Returns:
        N scores, 0 or 1; None where the answer is null: a problem of another data set.

    Raises:
        ValueError: an answer is none of the letters, or there are fewer than two.
    """
    count = len(completions)
    options = [None] * count if choices is None else column("choices", choices, count)
    known = [_letters(place, each, letters) for place, each in enumerate(options)]
    right = [
        _right(place, *pair) for place, pair in enumerate(zip(column("answer", answer, count), known, strict=True))
    ]

    def score(place: int, completion: str) -> float | None:
        return None if right[place] is None else float(_chosen(completion, known[place]) == right[place])

    return scores("multiple_choice", completions, score, log_malformed)


def _letters(place: int, choices: Sequence[Any] | None, letters: str) -> str:
    if choices is None:
        found = letters.upper()
        if len(set(found)) < 2 or len(set(found)) < len(found) or not set(found) <= set(string.ascii_uppercase):
            raise ValueError(f"letters={letters!r} of multiple_choice: give two or more different ones, as in ABCD")
        return found
    if isinstance(choices, str) or not 2 <= len(choices) <= len(string.ascii_uppercase):
        raise ValueError(f"sample {place}: choices={choices!r:.80}: a list of 2 to 26 is needed")
    return string.ascii_uppercase[: len(choices)]


def _right(place: int, answer: Any, letters: str) -> str | None:
    if answer is None:
        return None
    if isinstance(answer, Integral) and not isinstance(answer, bool) and 0 <= int(answer) < len(letters):
        return letters[int(answer)]
    if isinstance(answer, str):
        letter = answer.strip().strip("().:").upper()
        if len(letter) == 1 and letter in letters:
            return letter
    raise ValueError(
        f"sample {place}: the answer {answer!r:.80} is none of the letters {letters}, nor a place from 0 to "
        f"{len(letters) - 1}"
    )


@lru_cache(maxsize=64)
def _patterns(letters: str) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """A list of letters at a text's beginning; further ones behind it; a marked letter; a letter that opens a text."""
    one = rf"\(?([{letters}])\)?(?!\w|['\u2019])"
    return (
        re.compile(rf"\s*(?:option\s+|choice\s+)?{one}", re.IGNORECASE),
        re.compile(rf"\s*(?:,\s*or|,\s*and|,|/|&|\+|\bor|\band|\bnor)\s*(?:option\s+|choice\s+)?{one}", re.IGNORECASE),
        re.compile(rf"^\s*(?:\(([{letters}])\)|([{letters}])(?:[.):]+(?=\s|$)|\s*$))", re.MULTILINE),
        re.compile(rf"\(([{letters}])\)"),
    )


def _chosen(completion: str, letters: str) -> str:
    """Raises Malformed: no letter, or more than one."""
    found: set[str] = set()
    if marked := _marked(completion):
        for content in marked:
            named = _leading(_plain(content), letters)
            if not named:
                raise Malformed(f"{content!r:.40} is marked as the answer and begins with no letter of {letters}")
            found |= named
    else:
        text = _plain(completion)
        if words := list(_WORDS.finditer(text)):
            for match in words:
                found |= _leading(text[match.end() : match.end() + 200], letters)
        else:
            _, _, alone, bracketed = _patterns(letters)
            found = {match[1] or match[2] for match in alone.finditer(text)}
            found |= {match[1] for match in bracketed.finditer(text)} | _leading_alone(text, letters)
    if len(found) > 1:
        raise Malformed(f"it names {' and '.join(sorted(found))}")
    if not found:
        raise Malformed(f"it chooses no letter of {letters}")
    return found.pop()


def _marked(text: str) -> list[str]:
    """What stands in tags and boxes."""
    found = [match[1] for match in _BOX.finditer(_FONT.sub("", text))]
    start = None
    for match in _TAG.finditer(text):
        if not match[1]:
            start = match.end() if start is None else start
        elif start is not None:
            found.append(text[start : match.start()])
            start = None
    return found


def _plain(text: str) -> str:
    return _MARKUP.sub("", _FONT.sub("", text)).replace("}", "")


def _leading(text: str, letters: str) -> set[str]:
    """The letters that a text begins with: B, or A and B of "A or B"."""
    first, further, _, _ = _patterns(letters)
    match = first.match(text)
    found = set()
    while match:
        found.add(match[1].upper())
        match = further.match(text, match.end())
    return found


def _leading_alone(text: str, letters: str) -> set[str]:
    """Of a text that is letters and nothing else, such as "A or b"."""
    first, further, _, _ = _patterns(letters)
    found, end = set(), 0
    match = first.match(text)
    while match:
        found.add(match[1].upper())
        end = match.end()
        match = further.match(text, end)
    return found if not text[end:].strip(" \n\t.!") else set()
