"""The start of a run, told while it happens."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from rl.run.metrics import read_rows
from rl.run.start import Arrivals, Start
from tests.rl.support.training import small_run


def test_each_step_is_shown_and_the_last_one_is_the_whole() -> None:
    shown: list[tuple[str, float]] = []
    start = Start(time.perf_counter() - 5, lambda step, seconds: shown.append((step, seconds)))
    assert start.seconds == 0
    start.done("one")
    start.done("two")
    assert shown == [*start.steps.items()]
    assert [step for step, _ in shown] == ["one", "two"]
    assert 5 <= start.steps["one"] <= start.steps["two"] == start.seconds


def test_a_kind_of_process_is_told_once_all_are_there() -> None:
    told: list[str] = []
    arrived = Arrivals(
        {"rollout": {"rollout-0": 1, "rollout-1": 1}, "learner": {"learner-0": 1}, "none": {}}, told.append
    )
    for name in ("rollout-1", "another", "learner-0", "rollout-0", "rollout-0"):
        arrived(name)
    assert told == ["1 learner process is ready", "2 rollout processes are ready"]


def test_the_start_is_a_row_of_its_own_and_all_parts_sum_to_the_whole(model: Path, tmp_path: Path) -> None:
    """It used to be a part of the first update."""
    small_run(model, tmp_path, "run.name=x", "run.updates=2")
    (start,) = read_rows(tmp_path / "x/starts.jsonl")
    rows = read_rows(tmp_path / "x/metrics.jsonl")
    assert start["update"] == 0
    assert [row.get("seconds/start") for row in rows] == [start["seconds"], None]
    for row in rows:
        seconds = {name: value for name, value in row.items() if name.startswith("seconds/")}
        parts = sum(value for name, value in seconds.items() if name != "seconds/clock" and "/term/" not in name)
        assert parts - row.get("seconds/start", 0) == pytest.approx(2 * row["seconds/update"])
    summary = json.loads((tmp_path / "x/summary.json").read_text())
    assert sum(summary["stage_seconds"].values()) == pytest.approx(summary["seconds"])
    assert summary["stage_seconds"]["start"] == start["seconds"]
