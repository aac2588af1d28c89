"""Processes that a run started end with it, by a mark that no change of session or parent takes away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.sweeping import swept
from cluster.watcher import VARIABLE, marked

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds marks in /proc")

ROOT = Path(__file__).parents[2]
DRIVER = """
import os, subprocess, sys, time
from cluster.sweeping import swept
with swept() as marks:
    subprocess.Popen(["sleep", "1000"], env={**os.environ, **marks}, start_new_session=True)
    print(*marks.values(), flush=True)
    time.sleep(1000)
"""


def seen(mark: str, count: int) -> None:
    """Within ten seconds."""
    deadline = time.monotonic() + 10
    while len(marked(mark)) != count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_has_the_mark_does_not_outlive_the_block() -> None:
    with swept() as marks:
        environment = {**os.environ, **marks}
        started = subprocess.Popen(["sleep", "1000"], env=environment, start_new_session=True)
        other = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        seen(marks[VARIABLE], 1)
        assert marked(marks[VARIABLE]) == [started.pid]
    assert started.wait(5) == -signal.SIGKILL
    assert other.poll() is None
    other.kill()
    other.wait()


def test_nor_a_driver_that_is_killed() -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER], env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None
    mark = driver.stdout.readline().split()[0]
    seen(mark, 1)
    driver.kill()
    driver.wait()
    seen(mark, 0)
