"""Real runs on a Ray of their own, ended from outside in every way: what they say, and that nothing of them is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest

from tests.rl.support.training import SMALL, metrics

pytestmark = [pytest.mark.processes, pytest.mark.slow]
ROOT = Path(__file__).parents[3]
MARK = "ENDS_TEST"


class Program:
    """`denoiserl train` in a process group of its own, as a shell starts it."""

    def __init__(self, model: Path, folder: Path, *overrides: str) -> None:
        self.mark = uuid.uuid4().hex
        self.rows = folder / "mine/metrics.jsonl"
        options = [*SMALL, f"model.path={model}", f"run.folder={folder}", "run.name=mine", *overrides]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rl.cli", "train", *options],
            cwd=ROOT,
            env={**os.environ, MARK: self.mark, "COLUMNS": "500"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def reaches(self, updates: int) -> None:
        deadline = time.monotonic() + 120
        while not self.rows.exists() or self.rows.read_text().count("\n") < updates:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def ends(self) -> tuple[int, str]:
        """Its exit status, and what it said; nothing of it lives ten seconds later."""
        said, _ = self.process.communicate(timeout=60)
        deadline = time.monotonic() + 10
        while left := self.alive():
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
        assert not [odd for odd in ("Traceback", "***") if odd in said], said
        return self.process.returncode, said

    def alive(self) -> list[str]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        return found


def test_runs_that_signals_end_go_on_and_leave_nothing(model: Path, tmp_path: Path) -> None:
    """The reward function leaves a process in a session of its own, which ends with the run, too."""
    reward = "reward.terms.answer.function=tests.rl.support.bad_rewards.leaves_a_daemon"
    words = [reward, "run.updates=1000", "run.checkpoint_every=500"]

    run = Program(model, tmp_path, *words)
    run.reaches(2)
    assert any("sleep 1000" in command for command in run.alive())
    os.killpg(run.process.pid, signal.SIGHUP)  # as a terminal does that is closed
    code, said = run.ends()
    done = len(metrics(tmp_path / "mine"))
    assert code == 129
    assert f"SIGHUP: the same command goes on from {tmp_path}/mine/checkpoints/u{done:06d}" in said
    assert said.endswith("ended by SIGHUP: the same command can be run again\n")

    run = Program(model, tmp_path, *words)
    run.reaches(done + 1)
    learner = next(p for p in psutil.process_iter() if "LearnerActor" in " ".join(p.cmdline()[:1]) and _is_of(p, run))
    learner.suspend()  # nothing waits for it
    began = time.monotonic()
    run.process.send_signal(signal.SIGTERM)
    code, said = run.ends()
    assert code == 143
    assert f"resuming after update {done} " in said
    assert f"SIGTERM: the same command goes on from {tmp_path}/mine/checkpoints/u" in said
    assert time.monotonic() - began < 20

    run = Program(model, tmp_path, *words)
    run.reaches(len(metrics(tmp_path / "mine")) + 1)
    run.process.kill()
    assert run.ends()[0] == -signal.SIGKILL


def _is_of(process: psutil.Process, run: Program) -> bool:
    return process.environ().get(MARK) == run.mark


def test_a_run_that_fails_leaves_nothing(model: Path, tmp_path: Path) -> None:
    function = "reward.terms.answer.function=tests.rl.support.bad_rewards.leaves_a_daemon_and_fails"
    run = Program(model, tmp_path, function, "reward.try_first=false")
    code, said = run.ends()
    assert code == 1
    assert "could not be scored" in said
