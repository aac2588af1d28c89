"""Reasoning-gym's own verifiers: about a hundred procedural tasks, each with its scorer.

Some scorers evaluate the answer as Python (`eval`, or sympy's `parse_expr`, which is `eval` underneath). Answers to
those tasks are let through only if they cannot call anything but mathematical functions; one that could scores 0
without being evaluated. They may still be expensive (`9**9**9**9`): the scorer's deadline handles those.

What the scorers pay for answers that deserve nothing is in docs/verifiers.md. Tasks that are known to be bad
(`rewards.known_tasks`) are refused. A scorer that raises on a model's text has a malformed answer before it, not a
failure: otherwise the worst samples would leave their groups.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable
from typing import Any

from reasoning_gym.factory import create_dataset
from reasoning_gym.utils import extract_answer

from rewards.known_tasks import REFUSED

_EVALUATED_AS_LITERAL = {"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"}
_EVALUATED_AS_MATHEMATICS = {
    "countdown",
    "intermediate_integration",
    "polynomial_multiplication",
    "puzzle24",
    "simple_integration",
}
_MATHEMATICS = re.compile(r"[-+*/^(),.=\s0-9A-Za-z]*")  # no quotes, brackets or underscores
_ATTRIBUTE = re.compile(r"\.\s*[A-Za-z]")
_WORD = re.compile(r"[A-Za-z]+")
_NOT_FINITE = re.compile(r"(?<![A-Za-z])(?:nan|inf(?:inity)?)(?:[ij]?)(?![A-Za-z])", re.IGNORECASE)
_NUMERAL = re.compile(r"\d[\d.]*[eE]\+?\d{3,}")
_ROUNDING = 1e-9
"""Of a scorer that adds up parts: spell_backward pays 1.0000000000000002."""
_INTEGER = re.compile(r"\d+")
_FUNCTIONS = {"sin", "cos", "tan", "asin", "acos", "atan", "exp", "log", "ln", "sqrt", "pi", "Abs", "erf", "Integral"}


def reasoning_gym(
    completions: list[str],
    entry: list[dict[str, Any] | None],
    strict: bool = False,
    answer_tag: str | None = None,
    task_options: dict[str, Any] | None = None,
    log_malformed: Callable[[int, str, str], None] | None = None,
    **_: Any,
) -> list[float | None]:
    """Score each completion with the scorer of the task that made its problem.

    A text on which the scorer raises, though it can score the entry's own answer, is malformed and scores 0. So does a
    number that is not finite, where the own answer is none of these.

    Args:
        entry: N entries as a reasoning-gym data set yields them (`question`, `answer`, `metadata`);
            `metadata["source_dataset"]` names the task.
        strict: Pay 1 for a full score and 0 for anything less. Many tasks give partial credit (countdown pays 0.05 for
            using the right numbers), which can outweigh the rare solution.
        answer_tag: Score only the text in the last `<tag>...</tag>`; without one the score is 0. None scores the whole
            completion.
        task_options: Options that the task was generated with. Only `decimal_arithmetic`, `puzzle24` and
            `time_intervals` read them when scoring.
        log_malformed: is told of each malformed answer: its place, its task, and what is wrong.

    Returns:
        N scores, 0 to 1; None without an entry: a problem of another data set.

    Raises:
        ValueError: the entry is none of reasoning-gym's, or its scorer returned what is no score.
        Whatever the scorer raises on the entry's own answer, too; MemoryError.
    """
    rewards: list[float | None] = []
    for index, (completion, one) in enumerate(zip(completions, entry, strict=True)):
        if one is None:
            rewards.append(None)
            continue
        answer = completion.strip() if answer_tag is None else extract_answer(completion, answer_tag)
        try:
            score = 0.0 if answer is None else _score(answer, one, task_options or {})
        except _Malformed as error:
            score = 0.0
            if log_malformed is not None:
                log_malformed(index, one["metadata"]["source_dataset"], str(error))
        rewards.append(float(score >= 1.0) if strict else score)
    return rewards


class _Malformed(Exception):
    """An answer that the scorer of its task cannot read."""


def _score(answer: str, entry: dict[str, Any], task_options: dict[str, Any]) -> float:
    try:
        task = entry["metadata"]["source_dataset"]
    except (KeyError, TypeError):
        raise ValueError(
            "the column `entry` must hold reasoning-gym entries: question, answer, and metadata with source_dataset; "
            f"got {entry!r:.200}"
        ) from None
    if task in REFUSED:
        raise ValueError(f"reasoning-gym's task {task!r} is refused: {REFUSED[task]}. See docs/verifiers.md")
    if not _is_safe(task, answer):
        return 0.0
    own = entry["answer"]
    if not _is_finite(answer) and isinstance(own, str) and _is_finite(own) and _has_numbers_only(own):
        raise _Malformed("it holds a number that is not finite")
    scorer = _dataset(task, json.dumps(task_options, sort_keys=True)).score_answer
    try:
        score = scorer(answer, entry)
    except MemoryError:
        raise
    except Exception as error:  # whatever a scorer raises on text
        scorer(own, entry)  # raises where the entry is to blame
        raise _Malformed(f"{type(error).__name__}: {error}") from error
    if task == "puzzle24" and sorted(_INTEGER.findall(answer)) != sorted(map(str, entry["metadata"]["numbers"])):
        return 0.0  # compared as texts: Python makes no number of 5000 digits
    if not isinstance(score, int | float) or not abs(score) <= 1 + _ROUNDING:
        raise ValueError(f"the scorer of {task!r} returned {score!r}, which is no score")
    return max(-1.0, min(1.0, float(score)))


def _is_finite(answer: str) -> bool:
    """Whether the numbers in a text are; Python's float reads "nan" and "1e999" as numbers, too."""
    huge = any(math.isinf(float(numeral)) for numeral in _NUMERAL.findall(answer) if numeral.count(".") < 2)
    return not huge and not _NOT_FINITE.search(answer)


def _has_numbers_only(own: str) -> bool:
    """No words: letters of a number at most (`2 - 3i`, `1e5`)."""
    return bool(re.search(r"\d", own)) and not re.search(r"[A-Za-z]{2}", own)


def _is_safe(task: str, answer: str) -> bool:
    if task in _EVALUATED_AS_LITERAL:
        return not set("(*<") & set(answer)  # what could call, and what makes much of little: `[1]*9**9`
    if task in _EVALUATED_AS_MATHEMATICS:
        named = all(len(word) == 1 or word in _FUNCTIONS for word in _WORD.findall(answer))
        return named and _MATHEMATICS.fullmatch(answer) is not None and not _ATTRIBUTE.search(answer)
    return True


@functools.lru_cache(maxsize=256)
def _dataset(task: str, options: str) -> Any:
    return create_dataset(task, **json.loads(options))
