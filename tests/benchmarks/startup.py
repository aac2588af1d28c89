"""Seconds until the first update of the quickstart, and where they go; the last line is JSON.

python -m tests.benchmarks.startup
python -m tests.benchmarks.startup --runs 9 --only ray

Wall time depends on who else uses the machine; the CPU seconds of each process do so much less.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

RECIPE = ["recipe=quickstart", "run.updates=1", "run.checkpoint_every=0", "evaluation.every=0"]
IN_PROCESS = ["run.keep_trajectories=0"]
MARKS = {
    "cluster.joining": {"_join": "ray_init"},
    "rl.driver.train": {"planned": "checked"},
    "rl.driver.processes": {"_make_ready": "actors_ready"},
    "rl.run.folder": {"Run.record": "first_update"},
}
"""Module -> function -> name of the moment when it returns; `_begins` is added for the moment when it is called."""
NAMES = (
    ("ray::RolloutActor", "rollout"),
    ("ray::LearnerActor", "learner"),
    ("ray::RewardActor", "reward"),
    ("rewards.scoring.child", "reward_child"),
    ("ray::DashboardAgent", "ray_daemons"),
    ("ray::RuntimeEnvAgent", "ray_daemons"),
    ("ray::", "idle_workers"),
    ("default_worker.py", "idle_workers"),
    ("gcs_server", "ray_daemons"),
    ("raylet", "ray_daemons"),
    ("ray/", "ray_daemons"),
)
"""What a command line contains -> what the process is; the first that fits."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", choices=("ray", "in_process"))
    parser.add_argument("--probe", choices=("ray", "in_process"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.probe:
        probe(arguments.probe)
        return
    kinds = (arguments.only,) if arguments.only else ("ray", "in_process")
    measured: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for run in range(arguments.runs):
        for kind in kinds:  # in turns, so that a busy minute hits both
            measured[kind].append(measure(kind))
            print(f"run {run + 1}, {kind}: {json.dumps(measured[kind][-1])}", flush=True)
    medians = {
        f"{kind}/{name}": round(statistics.median(run.get(name, 0.0) for run in runs), 2)
        for kind, runs in measured.items()
        for name in sorted({name for run in runs for name in run})
    }
    print(json.dumps(medians))


def measure(kind: str) -> dict[str, float]:
    """Moments in seconds since the process was started, and `cpu/...` seconds of the processes at the first update."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-m", "tests.benchmarks.startup", "--probe", kind]
        environment = {**os.environ, "STARTUP_RESULT": str(result), "STARTUP_FOLDER": folder}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        return json.loads(result.read_text())


def probe(kind: str) -> None:
    """One training in this process, which was started for it."""
    began = psutil.Process().create_time()
    moments: dict[str, float] = {}

    def mark(name: str) -> None:
        moments.setdefault(name, round(time.time() - began, 3))
        if name == "first_update":
            Path(os.environ["STARTUP_RESULT"]).write_text(json.dumps(moments | cpu_seconds()))

    sys.meta_path.insert(0, _Marker(mark))
    overrides = [*RECIPE, f"run.folder={os.environ['STARTUP_FOLDER']}"]
    if kind == "in_process":
        from configs.compose import compose
        from rl.driver.in_process import train_in_process

        train_in_process(compose([*overrides, *IN_PROCESS]))
        return
    from rl.cli import main as command_line

    sys.argv = ["denoiserl", "train", *overrides]
    command_line()


def cpu_seconds() -> dict[str, float]:
    """User and system time of this process and of all below it, by role."""
    seconds: dict[str, float] = defaultdict(float)
    here = psutil.Process()
    for process in [here, *here.children(recursive=True)]:
        try:
            times, command = process.cpu_times(), " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        role = "driver" if process == here else next((role for part, role in NAMES if part in command), "other")
        seconds[f"cpu/{role}"] += times.user + times.system
        seconds["cpu/ended"] += times.children_user + times.children_system
    seconds["cpu/all"] = sum(seconds.values())
    return {name: round(value, 2) for name, value in seconds.items()}


class _Marker(importlib.abc.MetaPathFinder):
    """Wraps the functions of MARKS as soon as their module is imported, and imports nothing by itself."""

    def __init__(self, mark: Callable[[str], None]) -> None:
        self._mark = mark

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> Any:
        if name not in MARKS:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def execute_and_wrap(module: ModuleType) -> None:
            execute(module)
            self._mark(f"imported/{name}")
            for function, moment in MARKS[name].items():
                *owner, attribute = function.split(".")
                holder = getattr(module, owner[0]) if owner else module
                setattr(holder, attribute, self._wrapped(getattr(holder, attribute), moment))

        spec.loader.exec_module = execute_and_wrap  # type: ignore[method-assign]
        return spec

    def _wrapped(self, function: Callable[..., Any], moment: str) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            self._mark(f"{moment}_begins")
            result = function(*args, **kwargs)
            self._mark(moment)
            return result

        return wrapper


if __name__ == "__main__":
    main()
