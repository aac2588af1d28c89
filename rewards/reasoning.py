"""Reasoning-gym's own verifiers: about a hundred procedural tasks, each with its scorer.

Some scorers evaluate the answer as Python (`eval`, or sympy's `parse_expr`, which is `eval` underneath). Answers to
those tasks are let through only if they cannot call anything but mathematical functions; one that could scores 0
without being evaluated. They may still be expensive (`9**9**9**9`): the scorer's deadline handles those.

Some scorers are weak: `puzzle24` does not check which four numbers were used, `game_of_life_halting` pays 1 for any
text, and `prime_factorization` raises on words, which counts as a failure of the sample. Try a task's
scorer on wrong answers before training on it.
"""

from __future__ import annotations

import functools
import json
import re
from typing import Any

from reasoning_gym.factory import create_dataset
from reasoning_gym.utils import extract_answer

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
_FUNCTIONS = {"sin", "cos", "tan", "asin", "acos", "atan", "exp", "log", "ln", "sqrt", "pi", "Abs", "erf", "Integral"}


def reasoning_gym(
    completions: list[str],
    entry: list[dict[str, Any] | None],
    strict: bool = False,
    answer_tag: str | None = None,
    task_options: dict[str, Any] | None = None,
    **_: Any,
) -> list[float | None]:
    """Score each completion with the scorer of the task that made its problem.

    Args:
        entry: N entries as a reasoning-gym data set yields them (`question`, `answer`, `metadata`);
            `metadata["source_dataset"]` names the task.
        strict: Pay 1 for a full score and 0 for anything less. Many tasks give partial credit (countdown pays 0.05 for
            using the right numbers), which can outweigh the rare solution.
        answer_tag: Score only the text in the last `<tag>...</tag>`; without one the score is 0. None scores the whole
            completion.
        task_options: Options that the task was generated with. Only `decimal_arithmetic`, `puzzle24` and
            `time_intervals` read them when scoring.

    Returns:
        N scores, 0 to 1; None without an entry: a problem of another data set.
    """
    rewards: list[float | None] = []
    for completion, one in zip(completions, entry, strict=True):
        if one is None:
            rewards.append(None)
            continue
        answer = completion.strip() if answer_tag is None else extract_answer(completion, answer_tag)
        score = 0.0 if answer is None else _score(answer, one, task_options or {})
        rewards.append(float(score >= 1.0) if strict else score)
    return rewards


def _score(answer: str, entry: dict[str, Any], task_options: dict[str, Any]) -> float:
    try:
        task = entry["metadata"]["source_dataset"]
    except (KeyError, TypeError):
        raise ValueError(
            "the column `entry` must hold reasoning-gym entries: question, answer, and metadata with source_dataset; "
            f"got {entry!r:.200}"
        ) from None
    if not _is_safe(task, answer):
        return 0.0
    return float(_dataset(task, json.dumps(task_options, sort_keys=True)).score_answer(answer, entry))


def _is_safe(task: str, answer: str) -> bool:
    if task in _EVALUATED_AS_LITERAL:
        return "(" not in answer
    if task in _EVALUATED_AS_MATHEMATICS:
        named = all(len(word) == 1 or word in _FUNCTIONS for word in _WORD.findall(answer))
        return named and _MATHEMATICS.fullmatch(answer) is not None and not _ATTRIBUTE.search(answer)
    return True


@functools.lru_cache(maxsize=256)
def _dataset(task: str, options: str) -> Any:
    return create_dataset(task, **json.loads(options))
