"""The soak: a line a run, the whole story of every fault that cost more than it must, and last one line of JSON."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

from models.tiny.create import main as create
from tests.benchmarks.faults.judge import Verdict, judged
from tests.benchmarks.faults.kinds import FIELDS, Bench, Fault, kinds_of
from tests.benchmarks.faults.run import UPDATES, finished

FAULTS = ("late", "code", "traceback", "leftovers", "message", "weights", "worse")


@dataclass(frozen=True)
class Done:
    index: int
    field: str
    kind: str
    fault: Fault
    verdict: Verdict
    seconds: float


def bench_in(root: Path) -> tuple[Bench, Path]:
    """What faults are made with, and the run that nothing disturbs."""
    create("block", str(root / "model"))
    half, whole = root / "half" / "runs", root / "whole" / "runs"
    bench = Bench(root, root / "model", half)
    for folder, updates in ((half, UPDATES - 1), (whole, UPDATES)):
        folder.mkdir(parents=True)
        ended = finished(folder, bench.options(f"run.updates={updates}"))
        if ended.code != 0:
            raise RuntimeError(f"the run that nothing disturbs does not end well: {ended.output}")
    return bench, whole


def soak(seed: int, indices: Iterable[int], root: Path) -> Iterator[Done]:
    """Field, kind and fault of a run follow from (seed, index) alone; fields take turns. The moment within an update
    depends on the machine, too."""
    bench, whole = bench_in(root)
    for index in indices:
        began = time.perf_counter()
        rng = random.Random(f"{seed}/{index}")
        field = list(FIELDS)[index % len(FIELDS)]
        kind = rng.choice(kinds_of(field))
        fault = kind(bench, rng)
        verdict = judged(fault, bench, whole)
        yield Done(index, field, kind.__name__, fault, verdict, time.perf_counter() - began)


def summary(done: Iterable[Done], seed: int, seconds: float) -> dict[str, float]:
    done = list(done)
    counts = Counter(fault for each in done for fault in each.verdict.faults)
    good = [each for each in done if not each.verdict.faults]
    return {
        "runs": len(done),
        "right": sum(each.verdict.right for each in good),
        "ended_by_name": sum(not each.verdict.right for each in good),
        "tracebacks": counts["traceback"],
        **{fault: counts[fault] for fault in FAULTS if fault != "traceback"},
        "seed": seed,
        "seconds": round(seconds, 1),
    }


def story(done: Done, seed: int) -> str:
    seen = "\n".join(f"  {fault}: {text}" for fault, text in done.verdict.faults.items())
    return (
        f"\nrun {done.index} of seed {seed}, {done.field}, {done.kind}: {done.fault.what}\n{seen}\n"
        f"  again: python -m tests.benchmarks.faults --seed {seed} --only {done.index}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, nargs="+", help="these runs alone, whatever --runs says")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` and `nohup` have them ignored by runs, too
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    began, done = time.perf_counter(), []
    with tempfile.TemporaryDirectory(prefix="f") as folder:
        for each in soak(arguments.seed, arguments.only or range(arguments.runs), Path(folder)):
            done.append(each)
            how = ", ".join(each.verdict.faults) or ("right" if each.verdict.right else "ended by name")
            code, seconds = each.fault.ended.code, each.fault.ended.seconds
            print(
                f"{each.index:4} {each.field:11} exit {code!s:4} {seconds:5.1f} s  {how:14} {each.fault.what}",
                flush=True,
            )
            if each.verdict.faults:
                print(story(each, arguments.seed), flush=True)
    print(json.dumps(summary(done, arguments.seed, time.perf_counter() - began)))
    sys.exit(1 if any(each.verdict.faults for each in done) else 0)


if __name__ == "__main__":
    main()
