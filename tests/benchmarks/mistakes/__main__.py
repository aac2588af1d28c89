"""The soak: a line a run, the whole story of every silent mistake, and last one line of JSON."""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("DS_ACCELERATOR", "cpu")

from tests.benchmarks.mistakes import combinations, configuration, folders, references, resuming, rewarding, rows
from tests.benchmarks.mistakes.judge import Mistake, Outcome, Verdict, judged
from tests.benchmarks.mistakes.workshop import Workshop

FIELDS = {
    "configuration": (*configuration.KINDS, *combinations.KINDS),
    "rows": rows.KINDS,
    "references": references.KINDS,
    "rewards": rewarding.KINDS,
    "resume": (*resuming.KINDS, *folders.KINDS),
}


@dataclass(frozen=True)
class Done:
    index: int
    field: str
    kind: str
    mistake: Mistake
    verdict: Verdict
    seconds: float


def drawn(workshop: Workshop, seed: int, index: int) -> tuple[str, str, Mistake]:
    """Field, kind and mistake of one run, which follow from (seed, index) alone; fields take turns."""
    rng = random.Random(f"{seed}/{index}")
    field = list(FIELDS)[index % len(FIELDS)]
    kind = rng.choice(FIELDS[field])
    return field, kind.__name__, kind(workshop, rng)


def soak(seed: int, indices: Iterable[int], root: Path) -> Iterator[Done]:
    workshop = Workshop(root)
    for index in indices:
        started = time.perf_counter()
        field, kind, mistake = drawn(workshop, seed, index)
        verdict = judged(mistake)
        yield Done(index, field, kind, mistake, verdict, time.perf_counter() - started)


def summary(done: Iterable[Done], seed: int, seconds: float) -> dict[str, float]:
    done = list(done)
    outcomes = Counter(each.verdict.outcome.value for each in done)
    by_field = Counter(f"{each.field}/{each.verdict.outcome.value}" for each in done)
    return {
        "runs": len(done),
        **{outcome.value: outcomes[outcome.value] for outcome in Outcome},
        "seed": seed,
        "seconds": round(seconds, 1),
        **dict(sorted(by_field.items())),
    }


def story(done: Done, seed: int) -> str:
    return (
        f"\nrun {done.index} of seed {seed}, {done.field}, {done.kind}: {done.mistake.what}\n"
        f"  {done.verdict.seen}\n  again: python -m tests.benchmarks.mistakes --seed {seed} --only {done.index}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, nargs="+", help="these runs alone, whatever --runs says")
    parser.add_argument("--told", action="store_true", help="the messages of refusals, too")
    arguments = parser.parse_args()
    quieten()
    began, done = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        for each in soak(arguments.seed, arguments.only or range(arguments.runs), Path(folder)):
            done.append(each)
            what = " ".join(each.mistake.what.split())
            print(
                f"{each.index:4} {each.field:13} {each.verdict.outcome.value:7} {each.seconds:5.1f} s  {what}",
                flush=True,
            )
            if arguments.told and each.verdict.outcome is Outcome.refused:
                print(f"     {each.verdict.seen}", flush=True)
    silent = [each for each in done if each.verdict.outcome is Outcome.silent]
    for each in silent:
        print(story(each, arguments.seed))
    print(json.dumps(summary(done, arguments.seed, time.perf_counter() - began)))
    sys.exit(1 if silent else 0)


def quieten() -> None:
    """What libraries tell beside, a hundred times over."""
    from transformers.utils import logging as of_transformers

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    of_transformers.disable_progress_bar()


if __name__ == "__main__":
    main()
