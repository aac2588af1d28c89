"""How many sandboxed runs of trivial code a minute, for each isolation that this host offers, as one line of JSON:

    python -m tests.benchmarks.sandbox --runs 60 --workers 2 --python /usr/bin/python3

Beside runs a minute, which depend on what else the machine does, it counts what a run costs: seconds of processors,
processes that it starts, and its bytes towards the sandbox and back.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rewards.sandbox import choice, levels, runtime
from rewards.sandbox.levels import Level
from rewards.sandbox.limits import Limits
from rewards.sandbox.run import SandboxError, run

PROGRAM = "print(int(input()) + 1)\n"


def measured(level: Level, found: runtime.Runtime, runs: int, workers: int) -> dict[str, Any]:
    """Of so many runs, each in a sandbox of its own."""
    choice.check(level, found)
    started, processes, processors = time.perf_counter(), _processes(), _processors()

    def one(number: int) -> bool:
        (outcome,) = run(PROGRAM, "stdio", [f"{number}\n"], Limits(), level, found)
        return outcome.answer == f"{number + 1}\n"

    with ThreadPoolExecutor(workers) as pool:
        right = sum(pool.map(one, range(runs)))
    seconds = time.perf_counter() - started
    return {
        "isolation": level.name,
        "runs": runs,
        "right": right,
        "runs_a_minute": round(60 * runs / seconds, 1),
        "seconds": round(seconds, 3),
        "processor_seconds_a_run": round((_processors() - processors) / runs, 4),
        "processes_started_on_the_host_a_run": round((_processes() - processes) / runs, 2),
    }


def _processors() -> float:
    """Seconds that this process and those that it has waited for used."""
    return sum(
        getattr(resource.getrusage(who), name)
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        for name in ("ru_utime", "ru_stime")
    )


def _processes() -> int:
    """Since the machine started, threads included, of everybody."""
    return next(int(line.split()[1]) for line in Path("/proc/stat").read_text().splitlines() if line[:9] == "processes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--python", help="interpreter in the sandbox; without namespaces an unused user must read it")
    arguments = parser.parse_args()
    found = runtime.find(arguments.python)
    results, missing = [], {}
    for level in levels.candidates(allow_weak=True):
        try:
            results.append(measured(level, found, arguments.runs, arguments.workers))
        except SandboxError as error:
            missing[level.name] = str(error)
    load = [round(each, 2) for each in os.getloadavg()]
    print(
        json.dumps(
            {
                "cores": os.cpu_count(),
                "workers": arguments.workers,
                "load": load,
                "isolations": results,
                "missing": missing,
            }
        )
    )


if __name__ == "__main__":
    main()
