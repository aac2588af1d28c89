"""Tasks of reasoning-gym whose labels or verifiers are known to be bad, found by `docs/generate/verifiers.py`.

The library's version is pinned; docs/verifiers.md, and reasoning_tasks.json beside this file, have what the scan of it
found of each task.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("reasoning_tasks.json")
KNOWN: dict[str, dict[str, Any]] = json.loads(TABLE.read_text(encoding="utf-8"))["tasks"]
"""Task -> `scorer`: exact, graded or unsafe to optimise; `why`; `here`, what the reward `reasoning_gym` pays all the
same; `common`: the most frequent answer and its share."""

REFUSED = {
    "coin_flip": "its verifier pays 1 for 0, whatever the probability is",
    "game_of_life_halting": "its verifier pays 1 for any text where the answer is True",
    "syllogism": "one in eight of its labels is wrong",
}
"""Task -> why nobody should train on it."""

WEAK = {task: row["here"] for task, row in KNOWN.items() if row["here"] and task not in REFUSED}
"""Task -> what its reward will not notice."""

_LITERAL = "what is not the literal of a list is worth 0"
GUARDED = {
    "binary_matrix": _LITERAL,
    "complex_arithmetic": "a number that is not finite is malformed",
    "n_queens": _LITERAL,
    "puzzle24": "the four numbers must be the problem's",
    "spiral_matrix": _LITERAL,
    "string_insertion": _LITERAL,
}
"""Task -> what `rewards.reasoning` adds to its verifier."""
