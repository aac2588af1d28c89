"""Doing the runs of the gym, one after the other in this process, and keeping a file of each (`results`).

A run whose file is there is not done again, so a stopped gym goes on, and several processes share one by `part`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from configs.algorithm_options import AdvantageKind
from configs.compose import Composed
from configs.errors import UserError
from configs.schema import Config
from rl.commands.catalogue import cell_of
from rl.data.tickets import TicketKind
from rl.driver.in_process import Trained, train_in_process
from rl.gym.preference_pairs import make_pairs
from rl.gym.rates import choose_rates, read_rates
from rl.gym.results import CANNOT_RUN, Result, fingerprint, read_result, write_json
from rl.gym.tasks import RATE, Contestant, Plan, Task, contestants, plan_of
from rl.modality.choice import modality_of

SEARCH_SEED = 1_000_000
"""Of the runs that choose a learning rate; the report has none of its seed."""


@dataclass(frozen=True)
class Job:
    """One run."""

    task: str
    contestant: Contestant
    seed: int
    rate: float | None = None
    """The learning rate; None is the task's."""
    searching: bool = False

    @property
    def label(self) -> str:
        return f"{self.contestant.name} rate {self.rate:g}" if self.searching else f"{self.contestant.name} {self.seed}"

    def file(self, folder: Path) -> Path:
        if self.searching:
            return folder / self.task / "search" / f"{self.contestant.name}-{self.rate:g}.json"
        return folder / self.task / f"{self.contestant.name}-{self.seed}.json"


@dataclass(frozen=True)
class Selection:
    """What the command line chose."""

    tasks: dict[str, Task]
    seeds: Sequence[int]
    only: Sequence[str] = ()
    """Names of contestants; empty takes all."""
    part: tuple[int, int] = (1, 1)
    rates: Sequence[float] = ()
    """Learning rates to search; empty does the runs of the report."""
    again: bool = False
    config_dir: Path | None = None


def run_gym(selection: Selection, folder: Path, console: Console) -> list[Result]:
    """Does what is not done yet. Raises UserError when a file in `folder` is of another configuration."""
    jobs = jobs_of(selection, folder)
    mine = jobs[selection.part[0] - 1 :: selection.part[1]]
    known = {} if selection.again else _known(mine, selection, folder)
    results, bases = [], Bases()
    for number, job in enumerate(mine, 1):
        file = job.file(folder)
        result = known.get(file) or do_run(job, selection, folder, bases)
        if file not in known:
            write_json(file, asdict(result))
        results.append(result)
        line = f"{number}/{len(mine)} {job.task} {job.label}: {_outcome(result, file in known)}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if selection.rates:
        _choose_rates(jobs, folder, console)
    return results


def jobs_of(selection: Selection, folder: Path) -> list[Job]:
    """Every run, seeds in the outer loop: an early stop leaves few seeds of all rather than all seeds of few."""
    everyone = {name: contestants(task, selection.config_dir) for name, task in selection.tasks.items()}
    known = {each.name for found in everyone.values() for each in found}
    if unknown := sorted(set(selection.only) - known):
        raise UserError(f"--only {', '.join(unknown)}: there are {', '.join(sorted(known))}")
    wanted = {
        name: [each for each in found if not each.entry.skip and (not selection.only or each.name in selection.only)]
        for name, found in everyone.items()
    }
    if selection.rates:
        return [
            Job(name, each, SEARCH_SEED, rate, searching=True)
            for rate in selection.rates
            for name, found in wanted.items()
            for each in found
        ]
    rates = {name: read_rates(folder / name) for name in wanted}
    return [
        Job(name, each, seed, rates[name].get(each.name))
        for seed in selection.seeds
        for name, found in wanted.items()
        for each in found
    ]


def _known(jobs: list[Job], selection: Selection, folder: Path) -> dict[Path, Result]:
    """Results of these jobs that are there."""
    found = {}
    for job in jobs:
        file = job.file(folder)
        if not file.exists():
            continue
        result = read_result(file)
        if result.fingerprint != fingerprint_of(job, selection, folder):
            raise UserError(
                f"{file} is of another configuration: the task, the algorithm or its learning rate has changed since. "
                f"Delete it, give --again, or choose another folder"
            )
        if not result.error or result.fingerprint == CANNOT_RUN:  # what failed otherwise may end well now
            found[file] = result
    return found


def fingerprint_of(job: Job, selection: Selection, folder: Path) -> str:
    try:
        plan = plan_of_job(job, selection.tasks[job.task], folder, selection.config_dir)
    except UserError:
        return CANNOT_RUN
    return fingerprint(plan.composed.config, folder / job.task)


def plan_of_job(job: Job, task: Task, folder: Path, config_dir: Path | None, run_folder: str = "") -> Plan:
    """Raises UserError when no setting allows the run."""
    extra = [
        "run.name=gym",
        f"run.folder={run_folder}",
        f"run.seed={job.seed}",
        "run.checkpoint_every=0",
        "run.keep_trajectories=0",
        "cluster.threads=1",
        f"evaluation.every={10**9}",  # before and after
        "evaluation.samples=0",
    ]
    extra += [] if job.rate is None else [f"{RATE}={job.rate}"]
    extra += task.search if job.searching else []
    plan = plan_of(task, job.contestant, folder / job.task, extra, config_dir)
    if plan.composed.config.reward.solved_at is None:
        raise UserError(
            "reward.solved_at=null counts nothing as solved, and the gym compares shares of solved problems: set it to "
            "the reward of a success"
        )
    return plan


class Bases:
    """Evaluations before training, which many runs have in common."""

    def __init__(self) -> None:
        self._made: dict[str, dict[str, Any]] = {}

    def trained(self, composed: Composed) -> Trained:
        """`train_in_process`, with the first evaluation of an earlier run where it is the same."""
        config = composed.config
        what = [config.model, config.data.evaluation, config.evaluation, config.reward, config.run.seed]
        same = repr([*what, modality_of(config).sampler(TicketKind.greedy)])
        trained = train_in_process(composed, Console(quiet=True), self._made.get(same))
        self._made.setdefault(same, trained.evaluations[0])
        return trained


def do_run(job: Job, selection: Selection, folder: Path, bases: Bases) -> Result:
    """A run that fails is a result too: the others go on."""
    task, contestant = selection.tasks[job.task], job.contestant
    result = Result(
        task=job.task,
        name=contestant.name,
        seed=job.seed,
        fingerprint=CANNOT_RUN,
        cell=contestant.recipe.cell,
    )
    with tempfile.TemporaryDirectory() as run_folder:
        try:
            plan = plan_of_job(job, task, folder, selection.config_dir, run_folder)
        except UserError as error:
            return replace(result, error=str(error))
        config = plan.composed.config
        result.fingerprint = fingerprint(config, folder / job.task)
        result.setting, result.base, result.cell = plan.setting, config.model.path, cell_of(config.algorithm)
        result.learning_rate = config.algorithm.optimizer.learning_rate
        started, cpu = time.perf_counter(), time.process_time()
        try:
            if config.algorithm.advantage is AdvantageKind.preference:
                make_pairs(task, plan.setting, folder / job.task, selection.config_dir)
                started, cpu = time.perf_counter(), time.process_time()
            trained = bases.trained(plan.composed)
            result.seconds, result.cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
            return _with_numbers(result, trained, config)
        except Exception as error:
            return replace(result, error=f"{type(error).__name__}: {error}")


def _with_numbers(result: Result, trained: Trained, config: Config) -> Result:
    ends = (trained.evaluations[0], trained.evaluations[-1])
    before, after = (
        [[None if np.isnan(sample) else sample for sample in problem] for problem in row["solved/greedy"]]
        for row in ends
    )
    offline = config.algorithm.advantage.offline
    planned = config.run.updates * config.rollout.prompts_per_update  # groups, where nothing was generated

    def total(name: str) -> float:
        return float(sum(row.get(name, 0.0) for row in trained.metrics))

    return replace(
        result,
        before=before,
        after=after,
        samples=int(total("groups/generated") or planned) * (1 if offline else config.rollout.group_size),
        forwards=total("rollout/forwards"),
        rows=total("learner/rows"),
        optimizer_updates=int(max((row.get("learner/optimizer_updates", 0) for row in trained.metrics), default=0)),
        updates_without_signal=sum("learner/rows" not in row for row in trained.metrics),
    )


def _choose_rates(jobs: list[Job], folder: Path, console: Console) -> None:
    """Once all parts of a search are done."""
    for task in dict.fromkeys(job.task for job in jobs):
        if left := sum(not job.file(folder).exists() for job in jobs if job.task == task):
            console.print(f"{task}: {left} runs of the search are left; the rates are chosen when they are done")
        else:
            choose_rates(folder / task)


def _outcome(result: Result, known: bool) -> str:
    if result.error:
        return f"failed: {result.error.splitlines()[0]}" + (" (done before)" if known else "")
    before, after = (float(np.nanmean(values)) for values in result.solved)
    return f"{before:.3f} -> {after:.3f}" + (" (done before)" if known else f" in {result.seconds:.0f} s")
