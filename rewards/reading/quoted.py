"""Which text a prompt asks for, and how near a reading comes to it: the formula of Flow-GRPO (arXiv 2505.05470).

Both texts lose their spaces and their capitals. With d the least number of letters to insert, delete or replace, and n
the letters that are asked for,

    s = 1 - min(d, n) / n,    and d = 0 where the reading contains the text.
"""

from __future__ import annotations


def quoted(prompt: str) -> str | None:
    """The text between the prompt's first pair of straight double quotes; None where it has no quotes.

    Raises:
        ValueError: the quotes do not close, or have nothing to read between them.
    """
    parts = prompt.split('"')
    if len(parts) == 1:
        return None
    if len(parts) == 2 or not letters(parts[1]):
        raise ValueError(
            f"the prompt {prompt[:120]!r} has a double quote, and no text between a pair of them: quote what the "
            f'picture should say, as in: a sign that says "open"'
        )
    return parts[1]


def nearness(reading: str, text: str, whole: bool = False) -> float:
    """How near a reading is to the text, 0 to 1.

    Args:
        whole: what else was read counts as wrong letters. Without it a picture full of words is paid for the right one
            among them, as Flow-GRPO has it.
    """
    found, wanted = letters(reading), letters(text)
    if not whole and wanted in found:
        return 1.0
    return 1.0 - min(distance(found, wanted), len(wanted)) / len(wanted)


def letters(text: str) -> str:
    return text.replace(" ", "").lower()


def distance(first: str, second: str) -> int:
    """Levenshtein's: the least number of letters to insert, delete or replace."""
    row = list(range(len(second) + 1))  # distances of what was read so far to every beginning of `second`
    for index, letter in enumerate(first, start=1):
        before, row[0] = row[0], index
        for column, other in enumerate(second, start=1):
            before, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, before + (letter != other))
    return row[-1]
