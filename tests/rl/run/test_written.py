"""A resume goes on with the record that its run wrote, and with no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.errors import UserError
from rl.run.written import check_written, written

ROWS = [json.dumps({"update": update, "reward/mean": 0.1 * update}) + "\n" for update in range(3)]
EVALUATIONS = [json.dumps({"update": update, "identity": "a"}) + "\n" for update in (0, 2)]


def put(folder: Path, metrics: list[str], evaluations: list[str] = EVALUATIONS) -> None:
    (folder / "metrics.jsonl").write_text("".join(metrics))
    (folder / "evaluations.jsonl").write_text("".join(evaluations))


@pytest.fixture
def recorded(tmp_path: Path) -> dict:
    """At the checkpoint after two updates."""
    put(tmp_path, ROWS[:2])
    return json.loads(json.dumps(written(tmp_path)))


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: [],
        lambda rows: rows[1:],
        lambda rows: [rows[0], *rows],
        lambda rows: [*rows, rows[0]],
        lambda rows: rows[::-1],
        lambda rows: [rows[0].replace("0.0", "0.5"), *rows[1:]],
    ],
    ids=["gone", "one is missing", "one twice", "one again", "in another order", "another number"],
)
def test_another_history_is_refused(tmp_path: Path, recorded: dict, change: Callable[[list[str]], list[str]]) -> None:
    put(tmp_path, change(ROWS[:2]))
    with pytest.raises(UserError, match=r"metrics.jsonl is not what this run had written .* Restore the file"):
        check_written(tmp_path, recorded, 2)


def test_what_came_behind_the_checkpoint_is_a_resumes_own_affair(tmp_path: Path, recorded: dict) -> None:
    put(
        tmp_path, [*ROWS, '{"update": 3, "rew'], [*EVALUATIONS, EVALUATIONS[1].replace('"a"', '"b"'), '{"update": 4}\n']
    )
    check_written(tmp_path, recorded, 2)
    check_written(tmp_path, {}, 2)  # a run from before there was this


def test_other_evaluations_are_refused(tmp_path: Path, recorded: dict) -> None:
    put(tmp_path, ROWS[:2], EVALUATIONS[1:])
    with pytest.raises(UserError, match=r"evaluations.jsonl is not what this run had written"):
        check_written(tmp_path, recorded, 2)
