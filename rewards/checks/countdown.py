"""Countdown: reach a target with the four operations, each of the given numbers used exactly once.

As d1 scores it (diffu-GRPO, arXiv 2504.12216), whose rule is TinyZero's: the expression in the last `<answer>`, 1 where
it has exactly the given numbers and the target's value, else 0; shaped, 0.1 for the right numbers. Theirs calls
Python's `eval` on the model's text and compares floats to 1e-5; here the syntax tree is counted out in fractions.
Powers and floor divisions, which `eval` lets through, are no operations of the game.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from rewards.checks.answers import LogMalformed, Malformed, column, scores, tagged
from rewards.checks.arithmetic import numbers_of, value_of


def countdown(
    completions: list[str],
    numbers: Sequence[Sequence[int]] | None = None,
    target: Sequence[int] | None = None,
    nums: Sequence[Sequence[int]] | None = None,
    metadata: Sequence[Mapping[str, Any]] | None = None,
    answer_tag: str | None = "answer",
    log_malformed: LogMalformed | None = None,
    **_: Any,
) -> list[float | None]:
    """1 for an expression of exactly the given numbers that has the target's value, else 0.

    Args:
        numbers: N lists of whole numbers; `nums` is another name of the column.
        target: N whole numbers.
        metadata: where there is neither: N mappings with `numbers` and `target`, as reasoning-gym's rows have them.
        answer_tag: the expression is what stands in the last `<answer_tag>`; None is the whole completion.

    Returns:
        N scores, 0 or 1; None where numbers and target are null: a problem of another data set.

    Raises:
        ValueError: a row has no numbers or no target, or they are no whole numbers.
    """
    games = _games(len(completions), numbers if numbers is not None else nums, target, metadata)
    return scores("countdown", completions, lambda i, text: _paid(text, games[i], answer_tag, 0.0, 0.0), log_malformed)


def countdown_shaped(
    completions: list[str],
    numbers: Sequence[Sequence[int]] | None = None,
    target: Sequence[int] | None = None,
    nums: Sequence[Sequence[int]] | None = None,
    metadata: Sequence[Mapping[str, Any]] | None = None,
    answer_tag: str | None = "answer",
    numbers_score: float = 0.1,
    any_answer_score: float = 0.0,
    log_malformed: LogMalformed | None = None,
    **_: Any,
) -> list[float | None]:
    """As `countdown`, and `numbers_score` for a readable expression of exactly the given numbers with another value.

    Args:
        any_answer_score: for whatever else stands in the tag. The paper says 0, its code pays 0.1 for any text there.
    """
    for name, score in (("numbers_score", numbers_score), ("any_answer_score", any_answer_score)):
        if not 0 <= score < 1:
            raise ValueError(f"{name}={score} of countdown_shaped: choose 0 or more, and less than the 1 of a solution")
    games = _games(len(completions), numbers if numbers is not None else nums, target, metadata)
    return scores(
        "countdown_shaped",
        completions,
        lambda i, text: _paid(text, games[i], answer_tag, numbers_score, any_answer_score),
        log_malformed,
    )


_Game = tuple[list[int], int] | None
"""(the numbers in order of size, the target); None is another data set's."""


def _paid(completion: str, game: _Game, tag: str | None, numbers_score: float, any_score: float) -> float | None:
    if game is None:
        return None
    expression = tagged(completion, tag)
    try:
        value = value_of(expression)
    except Malformed:
        if any_score:
            return any_score
        raise
    if sorted(numbers_of(expression)) != game[0]:
        return any_score
    return 1.0 if value == game[1] else numbers_score


def _games(
    count: int, numbers: Any, target: Sequence[int] | None, metadata: Sequence[Mapping[str, Any]] | None
) -> list[_Game]:
    if numbers is None and target is None and metadata is not None:
        rows = column("metadata", metadata, count)
        pairs = [(row.get("numbers"), row.get("target")) if isinstance(row, Mapping) else (None, None) for row in rows]
    elif numbers is None or target is None:
        raise ValueError(
            "countdown needs the dataset columns `numbers` (or `nums`) and `target`, or `metadata` that has both"
        )
    else:
        pairs = list(zip(column("numbers", numbers, count), column("target", target, count), strict=True))
    return [_game(place, *pair) for place, pair in enumerate(pairs)]


def _game(place: int, numbers: Any, target: Any) -> _Game:
    if numbers is None and target is None:
        return None
    given = [] if numbers is None or isinstance(numbers, str | bytes | Mapping) else list(numbers)
    if not given or not all(_is_whole(each) and each >= 0 for each in given):
        raise ValueError(
            f"sample {place}: numbers={numbers!r:.100} of countdown: a list of whole numbers, 0 or more, is needed"
        )
    if not _is_whole(target):
        raise ValueError(f"sample {place}: target={target!r:.100} of countdown: a whole number is needed")
    return sorted(map(int, given)), int(target)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
