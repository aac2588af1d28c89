"""Draws mutants, runs the tests against them and reports; the last line is JSON.

python -m tests.mutants
python -m tests.mutants --only reveal --count 20 --seed 1
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.mutants.mutations import Mutant, sample
from tests.mutants.report import Accepted, Result, flat, lines_of, read_accepted
from tests.mutants.runner import Baseline, Outcome, Task, Verdict, measure, preload, run_all
from tests.mutants.table import ROOT, TARGETS, Target, source_of

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[target.group for target in TARGETS])
    parser.add_argument("--count", type=int, default=45, help="mutants of each group of modules")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("runs/mutants"))
    parser.add_argument("--page", type=Path, help="where the report goes, as Markdown")
    parser.add_argument("--keep", type=Path, help="results of an earlier run: what was killed is not run again")
    parser.add_argument("--least", type=float, help="fail below this share killed, equivalent mutants left out")
    arguments = parser.parse_args()
    started = time.monotonic()
    accepted = read_accepted()
    targets = [target for target in TARGETS if arguments.only is None or target.group in arguments.only]
    killed = read_killed(arguments.keep) if arguments.keep else {}
    results: list[Result] = []
    for target in targets:
        results += run_target(target, arguments.count, arguments.seed, arguments.jobs, killed)
        numbers = {"seed": arguments.seed, **flat(results, accepted), "seconds": round(time.monotonic() - started, 1)}
        write(arguments.folder / "mutants.json", numbers, results, accepted)
    how = f", {len(killed)} of them killed in an earlier run" if killed else ""
    lines = [
        f"{len(results)} mutants, seed {arguments.seed}{how}, {arguments.jobs} at a time, "
        f"{numbers['seconds'] / 60:.0f} minutes, Python {platform.python_version()}.",
        *lines_of(results, accepted),
        *_unused(results, accepted),
    ]
    if arguments.page:
        arguments.page.write_text("\n".join([*_heading(arguments.page), *lines]).rstrip() + "\n")
    print("\n".join([*lines, json.dumps(numbers)]))
    if arguments.least is not None and numbers["rate_without_equivalent"] < arguments.least:
        sys.exit(1)


def write(path: Path, numbers: Mapping[str, Any], results: Sequence[Result], accepted: Accepted) -> None:
    """After every group of modules: what an interrupted run has found can be kept."""
    rows = [
        {"group": each.group, "module": each.module}
        | {name: value for name, value in asdict(each.mutant).items() if name != "source"}
        | asdict(each.outcome)
        | {"verdict": each.outcome.verdict.value, "reason": accepted.get(each.name)}
        for each in results
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**numbers, "results": rows}, indent=1) + "\n")


def read_killed(results: Path) -> dict[tuple[str, str, int, str], Outcome]:
    """By module, function, line and diff. Only right while tests are added and nothing else changes."""
    found = {}
    for row in json.loads(results.read_text())["results"]:
        outcome = Outcome(Verdict(row["verdict"]), row["by"], row["seconds"])
        if outcome.verdict is not Verdict.survived:
            found[row["module"], row["function"], row["line"], row["diff"]] = outcome
    return found


def run_target(
    target: Target, count: int, seed: int, jobs: int, killed: Mapping[tuple[str, str, int, str], Outcome]
) -> list[Result]:
    """In the order of the file; survivors of the direct tests have met the wider ones too."""
    drawn = _draw(target, count, seed)
    kept = [killed.get((module, each.function, each.line, each.diff)) for module, each in drawn]
    outcomes = {place: outcome for place, outcome in enumerate(kept) if outcome is not None}
    left = [place for place in range(len(drawn)) if place not in outcomes]
    if left:
        preload(measure(target.tests, ROOT), ROOT)
    for tests in (target.tests, target.wider):
        if not left or not tests:
            continue
        found = _run([drawn[place] for place in left], tests, measure(tests, ROOT), jobs)
        for place, outcome in zip(left, found, strict=True):
            before = outcomes[place].seconds if place in outcomes else 0.0
            outcomes[place] = Outcome(outcome.verdict, outcome.by, outcome.seconds + before)
        left = [place for place in left if outcomes[place].verdict is Verdict.survived]
    return [Result(target.group, module, mutant, outcomes[place]) for place, (module, mutant) in enumerate(drawn)]


def _draw(target: Target, count: int, seed: int) -> list[tuple[str, Mutant]]:
    """As many of each module of the group as its share of the changes to draw from."""
    sources = {module: source_of(module).read_text() for module in target.modules}
    sizes = {module: sample(source, 0, seed)[1] for module, source in sources.items()}
    shares = {module: round(count * size / sum(sizes.values())) for module, size in sizes.items()}
    return [(module, each) for module in sources for each in sample(sources[module], shares[module], seed)[0]]


def _run(drawn: Sequence[tuple[str, Mutant]], tests: Sequence[str], baseline: Baseline, jobs: int) -> list[Outcome]:
    tasks = [
        Task(tests, module, source_of(module), mutant.source, baseline.durations, baseline.limit)
        for module, mutant in drawn
    ]
    outcomes: dict[int, Outcome] = {}
    for place, outcome in run_all(tasks, ROOT, jobs):
        outcomes[place] = outcome
        module, mutant = drawn[place]
        print(f"{outcome.verdict.value:9} {outcome.seconds:5.1f} s  {module}:{mutant.line}  {outcome.by}", flush=True)
        if outcome.verdict is Verdict.survived:
            print(mutant.diff, flush=True)
    return [outcomes[place] for place in range(len(drawn))]


def _unused(results: Sequence[Result], accepted: Accepted) -> list[str]:
    """Accepted mutants that tests kill, and those that can no longer be made of their modules."""
    lines = [
        f"Accepted, but killed by {each.outcome.by}: {each.module} {each.mutant.function} `{each.mutant.diff!r}`"
        for each in results
        if each.name in accepted and each.outcome.verdict is not Verdict.survived
    ]
    for module in dict.fromkeys(module for module, _, _ in accepted):
        mutants, _ = sample(source_of(module).read_text(), sys.maxsize, 0)
        made = {(mutant.function, mutant.diff) for mutant in mutants}
        lines += [
            f"Accepted, but no longer a mutant: {module} {function} `{diff!r}`"
            for of, function, diff in accepted
            if of == module and (function, diff) not in made
        ]
    return lines


def _heading(page: Path) -> list[str]:
    """What a person wrote above the first line that starts with a number of mutants."""
    lines = page.read_text().splitlines() if page.exists() else []
    return lines[: next((place for place, line in enumerate(lines) if " mutants, seed " in line), len(lines))]


if __name__ == "__main__":
    main()
