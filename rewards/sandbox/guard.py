"""The process between a scorer and one sandbox: it ends the whole tree when that is over one of its limits.

A program of its own, started as the keeper of a scoring process is, whose means it shares: orphans come to it, a
control group counts memory where one can be made, and nothing stays behind, however it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from typing import NoReturn

from rewards.scoring.keeper import OVER_MEMORY, keep

OVER_TIME, OVER_CPU, OVER_PROCESSES = 124, 123, 122
REASONS = {OVER_MEMORY: "memory", OVER_TIME: "timeout", OVER_CPU: "timeout", OVER_PROCESSES: "processes"}
"""Exit status -> what the tree was ended for."""
LOOK_SECONDS = 0.05
_OF_SANDBOX_MIB = 96
"""What the sandbox itself may hold, beside the program and its files."""
_OF_SANDBOX_PROCESSES = 8


def main() -> NoReturn:
    """Arguments: the limits as JSON, then the command."""
    limits = json.loads(sys.argv[1])
    watch = Watch(limits["seconds"], limits["cpu_seconds"], limits["processes"] + _OF_SANDBOX_PROCESSES)
    mebibytes = limits["memory_mib"] + limits["scratch_mib"] + _OF_SANDBOX_MIB
    keep(sys.argv[2:], int(mebibytes * 2**20), LOOK_SECONDS, watch.breach)


class Watch:
    """The limits of a tree that no limit of a process is."""

    def __init__(self, seconds: float, cpu_seconds: float, processes: int) -> None:
        self._ends = time.monotonic() + seconds
        self._cpu_seconds, self._processes = cpu_seconds, processes

    def breach(self, processes: list[int]) -> int:
        if time.monotonic() > self._ends:
            return OVER_TIME
        seconds, threads = _used(processes)
        if seconds > self._cpu_seconds:
            return OVER_CPU
        return OVER_PROCESSES if threads > self._processes else 0


def _used(processes: list[int]) -> tuple[float, int]:
    """Seconds of processors that they and those that they have waited for used; their threads."""
    ticks = threads = 0
    for process in processes:
        with contextlib.suppress(OSError), open(f"/proc/{process}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
            ticks += sum(map(int, fields[11:15]))
            threads += int(fields[17])
    return ticks / os.sysconf("SC_CLK_TCK"), threads
