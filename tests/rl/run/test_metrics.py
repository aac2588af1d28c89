"""The record of a run: strict, resumable, and comparable between runs."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rl.run.lines import keep_until
from rl.run.metrics import MetricsWriter, deterministic_view, read_rows


def tensorboard(folder: Path, name: str) -> list[tuple[int, float]]:
    accumulator = EventAccumulator(str(folder / "tensorboard"))
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(name)]


def train(writer: MetricsWriter, updates: range) -> None:
    for update in updates:
        writer.write(update, {"reward/mean": update / 8, "tickets": update * 2, "seconds/learn": 0.1 * update})


def test_rows_come_back_and_tensorboard_shows_them(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path)
    train(writer, range(3))
    writer.close()
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert deterministic_view(rows) == [{"update": u, "reward/mean": u / 8, "tickets": 2 * u} for u in range(3)]
    assert [row["seconds/learn"] for row in rows] == pytest.approx([0.0, 0.1, 0.2])
    assert tensorboard(tmp_path, "reward/mean") == [(0, 0.0), (1, 0.125), (2, 0.25)]


def test_a_resumed_record_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    straight = MetricsWriter(tmp_path / "straight")
    train(straight, range(6))
    straight.close()
    interrupted = MetricsWriter(tmp_path / "resumed")
    train(interrupted, range(5))
    interrupted.close()
    keep_until(tmp_path / "resumed/metrics.jsonl", 1)
    resumed = MetricsWriter(tmp_path / "resumed")
    train(resumed, range(2, 6))
    resumed.close()
    histories = [deterministic_view(read_rows(tmp_path / name / "metrics.jsonl")) for name in ("straight", "resumed")]
    assert histories[0] == histories[1]
    assert len(histories[0]) == 6
    curves = [tensorboard(tmp_path / name, "reward/mean") for name in ("straight", "resumed")]
    assert curves[0] == curves[1] == [(u, u / 8) for u in range(6)]


def test_an_update_is_never_recorded_twice(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path)
    train(writer, range(3))
    with pytest.raises(ValueError, match=r"already holds update 2.*sets later rows aside first"):
        writer.write(2, {"reward/mean": 0.0})
    writer.close()
    with pytest.raises(ValueError, match="already holds update 2"):
        MetricsWriter(tmp_path).write(0, {"reward/mean": 0.0})


@pytest.mark.parametrize("value", [math.nan, math.inf, np.float32("nan"), "1", None, True, np.zeros(1)])
def test_what_is_not_a_finite_number_is_named_and_not_written(tmp_path: Path, value: object) -> None:
    writer = MetricsWriter(tmp_path)
    with pytest.raises(ValueError, match="metric loss of update 0"):
        writer.write(0, {"reward/mean": 1.0, "loss": value})  # type: ignore[dict-item]
    assert read_rows(tmp_path / "metrics.jsonl") == []


def test_numpy_numbers_are_numbers_and_allowed_nan_is_strict_json(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, may_be_nonfinite={"kl"})
    writer.write(0, {"a": np.float32(0.5), "b": np.int64(3), "kl": math.nan})
    writer.close()
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=pytest.fail)["kl"] is None
    row = read_rows(tmp_path / "metrics.jsonl")[0]
    assert (row["a"], row["b"]) == (0.5, 3)
    assert math.isnan(row["kl"])
    assert math.isnan(tensorboard(tmp_path, "kl")[0][1])
    MetricsWriter(tmp_path).close()  # a record with null is continued by any writer
    assert (tmp_path / "metrics.jsonl").read_text() == line


def test_a_line_cut_off_by_a_crash_is_dropped_and_a_broken_one_is_named(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path)
    train(writer, range(2))
    writer.close()
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"update": 2, "rew')
    assert [row["update"] for row in read_rows(path)] == [0, 1]
    writer = MetricsWriter(tmp_path)
    train(writer, range(2, 3))
    writer.close()
    assert [row["update"] for row in read_rows(path)] == [0, 1, 2]
    path.write_text("{broken\n" + path.read_text())
    with pytest.raises(ValueError, match="line 1: not JSON"):
        MetricsWriter(tmp_path)


def test_it_does_not_need_torch() -> None:
    program = "import sys, rl.run.metrics; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
