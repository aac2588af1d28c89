"""The soak of faults: ten of its runs, and that it sees what it looks for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.faults.__main__ import FAULTS, Done, soak, story, summary
from tests.benchmarks.faults.judge import judged
from tests.benchmarks.faults.kinds import FIELDS, Bench, Fault
from tests.benchmarks.faults.run import AFTER_END, Ended, Run

pytestmark = pytest.mark.processes


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_faults_cost_no_more_than_they_must(tmp_path: Path) -> None:
    done = list(soak(12, range(10), tmp_path))
    assert [story(each, 12) for each in done if each.verdict.faults] == []
    assert {each.field for each in done} == set(FIELDS)
    counted = summary(done, 12, 1.0)
    assert (counted["runs"], counted["tracebacks"], counted["leftovers"]) == (10, 0, 0)


def verdict_of(code: int | None, output: str = "", leftovers: tuple[str, ...] = ()) -> dict[str, str]:
    """What is seen of a run that may end with 0 or 1, and whose folder nobody goes on in."""
    bench = Bench(Path(), Path(), Path())
    fault = Fault("a fault", Ended(code, output, 1.0, [*leftovers]), (0, 1), None)
    return judged(fault, bench, Path()).faults


@pytest.mark.parametrize(
    ("code", "output", "seen"),
    [
        (0, "all is well", set()),
        (1, "error: rollout-0 is gone: start it again with more memory", set()),
        (1, "error: rollout-0 is gone", {"message"}),
        (1, "the end", {"message"}),
        (None, "error: wait", {"late"}),
        (2, "error: use another option", {"code"}),
        (1, "Traceback (most recent call last):\n  x\nerror: use more memory", {"traceback"}),
        (0, "*** SIGTERM received at time=1 on cpu 0 ***", {"traceback"}),
        (0, "[2026-11-30 19:56:38,889 E 10443 10443] logging.cc:474: x", {"traceback"}),
    ],
)
def test_what_must_not_be_is_seen(code: int | None, output: str, seen: set[str]) -> None:
    assert verdict_of(code, output).keys() == seen
    assert seen <= set(FAULTS)


def test_what_stays_behind_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has left its parent, its session and its output, and a segment of shared memory; not one that
    another program makes meanwhile."""
    monkeypatch.setattr("tests.benchmarks.faults.run.AFTER_END", 0.5)
    (tmp_path / "runs").mkdir()
    segment = Path(f"/dev/shm/faults-{os.getpid()}")
    stray = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'], "
    stray += f"start_new_session=True, stdout=-3, stderr=-3); open({str(segment)!r}, 'w')"
    other = Path(f"/dev/shm/another-{os.getpid()}")
    run = Run(tmp_path / "runs", wrap=[sys.executable, "-c", stray])
    try:
        other.touch()
        ended = run.end()
    finally:
        other.unlink()
    assert (ended.code, len(ended.leftovers)) == (0, 2)
    assert "time.sleep(99)" in ended.leftovers[0]
    assert ended.leftovers[1] == str(segment)
    assert verdict_of(0, leftovers=tuple(ended.leftovers)).keys() == {"leftovers"}
    assert run.processes() == []
    assert AFTER_END > 0.5


def test_a_run_that_does_not_end_is_ended_and_late(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    run = Run(tmp_path / "runs", wrap=[sys.executable, "-c", "import time; time.sleep(99)"])
    ended = run.end(within=0.1)
    assert (ended.code, ended.leftovers) == (None, [])
    assert run.process.returncode == -signal.SIGKILL


def test_a_summary_counts_every_kind() -> None:
    bench = Bench(Path(), Path(), Path())
    ends = [Ended(0, "", 1.0), Ended(1, "error: use more", 1.0), Ended(None, "Traceback (most recent call last)", 1.0)]
    faults = [Fault("f", ended, (0, 1), None) for ended in ends]
    done = [Done(i, "killed", "k", fault, judged(fault, bench, Path()), 1.0) for i, fault in enumerate(faults)]
    counted = summary(done, 0, 3.0)
    assert (counted["right"], counted["ended_by_name"], counted["late"], counted["tracebacks"]) == (1, 1, 1, 1)
    assert "run 2 of seed 0, killed, k: f" in story(done[2], 0)


@pytest.mark.evidence
@pytest.mark.timeout(7200)
def test_the_command_ends_in_one_line_of_json(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.faults", "--seed", "0", "--only", "4"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith('{"runs": 1, "right": ')
