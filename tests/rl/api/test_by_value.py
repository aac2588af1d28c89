"""Parts that a notebook or a script defines: they train on Ray as in one process, and nothing pretends later that they
are still there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rl import open_run
from rl.run.metrics import deterministic_view, read_rows

pytestmark = [pytest.mark.processes, pytest.mark.slow]

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("by_value")
    for how in ("direct", "ray"):
        command = [sys.executable, "-m", "tests.rl.api.notebook_like", str(folder), how]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.timeout(600)
def test_actors_and_scoring_processes_have_them(runs):
    direct, on_ray = (deterministic_view(read_rows(runs / name / "metrics.jsonl")) for name in ("direct", "ray"))
    assert direct == on_ray
    assert len(direct) == 2
    assert all(row["learner/loss"] != 0 for row in direct)
    rewards = open_run(runs / "ray").samples()["reward"]
    assert rewards.max() <= 1.0
    assert rewards.nunique() > 1


@pytest.mark.timeout(600)
def test_a_run_folder_keeps_their_names_and_nothing_of_them(runs):
    run = open_run(runs / "ray")
    assert run.config.algorithm.custom.advantage == "__main__.median"
    files = [file for file in run.path.rglob("*") if file.is_file()]
    assert not [file for file in files if b"cloudpickle" in file.read_bytes() or b'find("1")' in file.read_bytes()]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["train", "algorithm.advantage=custom", "algorithm.custom.advantage=__main__.median"], "my_parts.median"),
        (["train", "reward.terms.answer.function=__main__.late", "reward.terms.answer.args={}"], "my_rewards.late"),
    ],
    ids=["advantage", "reward"],
)
def test_a_later_command_is_refused_with_the_way_out(runs, words, part):
    command = [sys.executable, "-m", "rl.cli", *words, "recipe=quickstart", f"run.folder={runs}", "run.name=ray"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "defined in a notebook or script" in done.stderr
    assert part in done.stderr
