"""The gym as a benchmark: a few algorithms on one seed, or what the arguments say; the last line is JSON.

python -m tests.benchmarks.gym
python -m tests.benchmarks.gym --task text --only trace_grpo espo --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console

from rl.gym.command import quieten
from rl.gym.report import lines_of, read_results, write_report
from rl.gym.runs import Selection, run_gym
from rl.gym.tasks import read_tasks, task_names

FEW = ("trace_grpo", "espo", "precise_grpo", "draft")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/gym-benchmark"), help="results that are there count")
    parser.add_argument("--task", nargs="+", default=task_names())
    parser.add_argument("--only", nargs="+", default=list(FEW))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    arguments = parser.parse_args()
    quieten()
    selection = Selection(read_tasks(arguments.task), arguments.seeds, tuple(arguments.only))
    console = Console()
    run_gym(selection, arguments.folder, console)
    write_report(selection.tasks, [arguments.folder], console)
    print(json.dumps({name: _summary(arguments.folder, name) for name in selection.tasks}))


def _summary(folder: Path, task: str) -> dict[str, dict[str, object]]:
    results, _ = read_results([folder], task)
    measured = {
        line.name: {
            "base": line.base,
            "before": round(line.before, 4),
            "after": round(line.after, 4),
            "gain": round(line.gain.value, 4),
            "ci95": [round(line.gain.low, 4), round(line.gain.high, 4)],
            "samples": line.samples,
            "forwards": line.forwards,
            "rows": line.rows,
            "cpu_seconds": round(line.cpu_seconds, 1),
        }
        for line in lines_of(results)
    }
    return measured | {one.name: {"error": one.error} for one in results if one.error and one.name not in measured}


if __name__ == "__main__":
    main()
