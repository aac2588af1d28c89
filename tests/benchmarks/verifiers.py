"""What a verifier of a text costs a sample: `python -m tests.benchmarks.verifiers` prints one line of JSON.

Called directly, as the scoring process calls it, on right and wrong answers of a usual length (about 2000 characters
where the length matters): the milliseconds of a processor for a sample, the best of some rounds after one that warms
up, and how many samples were scored, malformed and not scored.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import date
from typing import Any

from rewards.registry import resolve
from tests.rewards.checks.test_games import PUZZLE, SOLUTION
from tests.rewards.checks.test_instructions import GOLDEN

SAMPLES, ROUNDS = 64, 5
LIMIT = 2.0
"""Milliseconds of a sample that a verifier may take."""
PROSE = "It was a bright cold day in April, and the clocks were striking thirteen. " * 26
THOUGHT = f"<think>{PROSE}</think>"
ROW = {
    "type": "object",
    "properties": {
        "a": {
            "type": "array",
            "items": {"type": "object", "properties": {"b": {"type": "string"}, "c": {"type": "integer"}}},
        }
    },
    "required": ["a"],
}


def cases() -> dict[str, tuple[str, list[str], dict[str, Any]]]:
    """Name -> (the reward, its completions, the columns and options)."""
    many: Callable[[Any], list[Any]] = lambda one: [one] * SAMPLES  # noqa: E731
    games = {"numbers": many([3, 7, 25]), "target": many(82)}
    grids = {"puzzle": many(PUZZLE), "solution": many(SOLUTION)}
    sums = turned(["25 * 3 + 7", "25 + 3 + 7", "1 + 1", "no"])
    found: dict[str, tuple[str, list[str], dict[str, Any]]] = {
        "countdown": ("countdown", sums, games),
        "countdown_shaped": ("countdown_shaped", sums, games),
        "sudoku": ("sudoku", turned([SOLUTION, PUZZLE, "12"]), grids),
        "sudoku_shaped": ("sudoku_shaped", turned([SOLUTION, PUZZLE, "12"]), grids),
        "json_schema": ("json_schema", many(json.dumps({"a": [{"b": PROSE[:80], "c": 1}] * 20})), {"schema": ROW}),
        "xml_format": ("xml_format", turned(["a", "b"]), {}),
        "length": ("length", many(PROSE), {"unit": "words", "most": 300, "slope": 50}),
        "exact_match": ("exact_match", many(PROSE), {"answer": many(PROSE), "ignore_punctuation": True}),
        "regex_match": ("regex_match", many(PROSE), {"pattern": r"(?s).*thirteen\.\s*"}),
        "multiple_choice": ("multiple_choice", turned(["B", "C", "A or B"]), {"answer": many("B")}),
    }
    for name, arguments, *_ in GOLDEN:
        columns = {"instruction_id_list": many([name]), "kwargs": many([arguments])}
        texts = [f"{PROSE}{number}" for number in range(SAMPLES)]
        lower = name in ("change_case:english_lowercase", "language:response_language")
        written = [
            text.lower() if lower else text.upper() if name.endswith("english_capital") else text for text in texts
        ]
        found[f"instruction_following, {name}"] = ("instruction_following", written, columns)
    return found


def turned(answers: list[str]) -> list[str]:
    return [f"{THOUGHT}<answer>{answers[index % len(answers)]}</answer>" for index in range(SAMPLES)]


def measured(name: str, completions: list[str], arguments: dict[str, Any]) -> dict[str, float | int]:
    from rewards.checks.language import language

    function, best = resolve(name), float("inf")
    for _ in range(ROUNDS + 1):
        language.cache_clear()  # a text is scored once in a run
        malformed: list[int] = []
        log = lambda place, _label, _why, malformed=malformed: malformed.append(place)  # noqa: E731
        start = time.process_time()
        scores = function(completions=completions, prompts=[""] * len(completions), log_malformed=log, **arguments)
        best = min(best, time.process_time() - start)
    counted = {"scored": sum(score is not None for score in scores), "malformed": len(malformed)}
    return {"ms": round(1000 * best / len(completions), 4), **counted, "paid": round(sum(filter(None, scores)), 3)}


def main() -> None:
    found = {name: measured(*case) for name, case in cases().items()}
    slow = sorted(name for name, one in found.items() if one["ms"] > LIMIT)
    print(json.dumps({"date": date.today().isoformat(), "limit_ms": LIMIT, "slow": slow, "verifiers": found}))


if __name__ == "__main__":
    main()
