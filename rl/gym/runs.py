"""Doing the runs of the gym, one after the other in this process, and keeping a JSON file of each.

    FOLDER/text/trace_grpo-0.json            algorithm or combination, and seed
    FOLDER/text/search/trace_grpo-0.001.json the same of a search, and learning rate
    FOLDER/text/rates.json                   what the search chose
    FOLDER/text/pairs-block/pairs.jsonl      preference pairs of a setting

A run whose file is there is not done again, so a stopped gym goes on, and several processes share one by `part`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from cluster.weights import pack_weights
from configs.algorithm_options import AdvantageKind
from configs.compose import Composed
from configs.errors import UserError
from configs.schema import Config
from models.lora import trainable_parameters
from rl.catalogue import cell_of
from rl.data import open_training
from rl.gym.tasks import FOLDER, RATE, WHERE, Chosen, Contestant, Task, chosen, contestants, pairs_config, read_task
from rl.in_process import DirectGeneration, Trained, called_directly, train_in_process
from rl.modality import modality_of
from rl.pairs import draw_pairs
from rl.prompts import PromptSource
from rl.schedule import TicketKind

SEARCH_SEED = 1_000_000
"""Of the runs that choose a learning rate; the report has none of its seed."""
DRAWN_BY = "fingerprint"
"""File beside preference pairs."""
CANNOT_RUN = "cannot run"
"""Fingerprint of a run that no setting allows."""


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


@dataclass
class Result:
    """What is kept of a run."""

    task: str
    name: str
    seed: int
    fingerprint: str
    """Of the resolved configuration."""
    setting: str = ""
    base: str = ""
    learning_rate: float = 0.0
    cell: tuple[str, ...] = ()
    error: str = ""
    """Why there are no numbers; empty where there are."""
    before: list[list[float | None]] | None = None
    """(problems, images) 1 solved, 0 not, None unscored; greedy completions of the base, of texts one each"""
    after: list[list[float | None]] | None = None
    samples: int = 0
    """Drawn for training; of offline training, the demonstrations or pairs that it read."""
    forwards: float = 0.0
    """Of the rollouts, as their own metric counts them."""
    rows: float = 0.0
    """Scored by the learner."""
    optimizer_updates: int = 0
    updates_without_signal: int = 0
    cpu_seconds: float = 0.0
    """Of this process; rewards have their own."""
    seconds: float = 0.0

    @property
    def solved(self) -> tuple[np.ndarray, np.ndarray]:
        """(problems, images) float before and after, NaN where unscored."""
        assert self.before is not None
        assert self.after is not None
        return np.array(self.before, float), np.array(self.after, float)


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
        result = known.get(file) or do(job, selection, folder, bases)
        if file not in known:
            _write(file, asdict(result))
        results.append(result)
        line = f"{number}/{len(mine)} {job.task} {job.label}: {_line(result, file in known)}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if selection.rates:
        choose_rates(jobs, folder, console)
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
        return fingerprint(_chosen(job, selection, folder).composed, folder / job.task)
    except UserError:
        return CANNOT_RUN


def _chosen(job: Job, selection: Selection, folder: Path, run_folder: str = "") -> Chosen:
    task = selection.tasks[job.task]
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
    return chosen(task, job.contestant, folder / job.task, extra, selection.config_dir)


def fingerprint(composed: Composed, folder: Path) -> str:
    """The same wherever the results and the run itself lie, and after an option is added that the run leaves alone."""
    tree = _changed(composed.config)
    tree["run"].pop("folder", None)
    text = json.dumps(tree, sort_keys=True, default=lambda value: value.value)
    return hashlib.blake2b(text.replace(json.dumps(str(folder))[1:-1], WHERE).encode(), digest_size=8).hexdigest()


def _changed(value: Any) -> Any:
    """Options without those that have their default."""
    if isinstance(value, dict):
        return {name: _changed(each) for name, each in value.items()}
    if not is_dataclass(value):
        return value
    made = {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(value)}
    given = {name: getattr(value, name) for name in made}
    return {name: _changed(each) for name, each in given.items() if each != made[name]}


class Bases:
    """Evaluations before training, which many runs have in common."""

    def __init__(self) -> None:
        self._made: dict[str, dict[str, Any]] = {}

    def trained(self, composed: Composed) -> Trained:
        """`train_in_process`, with the first evaluation of an earlier run where it is the same."""
        config = composed.config
        what = [config.model, config.data.evaluation, config.evaluation, config.reward, config.run.seed]
        same = repr([*what, modality_of(config).sampler(TicketKind.greedy)])
        trained = train_in_process(composed, _silent(), self._made.get(same))
        self._made.setdefault(same, trained.evaluations[0])
        return trained


def do(job: Job, selection: Selection, folder: Path, bases: Bases) -> Result:
    """A run that fails is a result too: the others go on."""
    contestant = job.contestant
    result = Result(
        task=job.task,
        name=contestant.name,
        seed=job.seed,
        fingerprint=CANNOT_RUN,
        cell=contestant.recipe.cell,
    )
    with tempfile.TemporaryDirectory() as run_folder:
        try:
            plan = _chosen(job, selection, folder, run_folder)
        except UserError as error:
            return replace(result, error=str(error))
        config = plan.composed.config
        result.fingerprint = fingerprint(plan.composed, folder / job.task)
        result.setting, result.base, result.cell = plan.setting, config.model.path, cell_of(config.algorithm)
        result.learning_rate = config.algorithm.optimizer.learning_rate
        started, cpu = time.perf_counter(), time.process_time()
        try:
            if config.algorithm.advantage is AdvantageKind.preference:
                make_pairs(selection.tasks[job.task], plan.setting, folder / job.task, selection.config_dir)
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


def make_pairs(task: Task, setting: str, folder: Path, config_dir: Path | None = None) -> Path:
    """The file of a setting's preference pairs, drawn from its base unless it is there.

    Raises:
        UserError: the pairs that are there are of another configuration, or the base yields none.
    """
    composed = pairs_config(task, setting, config_dir)
    target, drawn_by = folder / f"pairs-{setting}", fingerprint(composed, folder)
    file = target / "pairs.jsonl"
    if file.exists():
        if (target / DRAWN_BY).read_text() != drawn_by:
            raise UserError(f"{target} was drawn with another configuration: delete it, and what learned from it")
        return file
    config = composed.config
    modality = modality_of(config)
    modality.check()
    sources = {TicketKind.sampled: PromptSource(open_training(config.data), modality)}
    weights = pack_weights(0, trainable_parameters(modality.policy(torch.device("cpu"))))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as draft, called_directly(config, learning=False) as processes:
        generation = DirectGeneration(config, processes, modality, sources, lambda _: nullcontext(), _silent().print)
        generation.weights[0] = weights
        if draw_pairs(generation, config, 0, Path(draft) / file.name, 1.0, _silent()).pairs == 0:
            raise UserError(f"the base of {setting} yields no pair of answers whose rewards are 1 apart")
        (Path(draft) / DRAWN_BY).write_text(drawn_by)
        try:
            os.rename(shutil.copytree(draft, f"{draft}.whole"), target)  # complete, or not there
        except OSError:  # another process was faster; its pairs are the same
            shutil.rmtree(f"{draft}.whole")
    return file


def choose_rates(jobs: list[Job], folder: Path, console: Console) -> None:
    """Writes the best learning rate of each contestant once all parts of a search are done."""
    for task in dict.fromkeys(job.task for job in jobs):
        mine = [job for job in jobs if job.task == task]
        if left := sum(not job.file(folder).exists() for job in mine):
            console.print(f"{task}: {left} runs of the search are left; the rates are chosen when they are done")
            continue
        file = folder / task / "rates.json"
        earlier = json.loads(file.read_text()) if file.exists() else {}  # a search of other contestants
        tried = [read_result(each) for each in sorted((folder / task / "search").glob("*.json"))]
        _write(file, {**earlier, **best_rates(tried)})


def best_rates(results: Sequence[Result]) -> dict[str, float]:
    """The rate with the most solved problems; the lowest of equals. A contestant that always failed has none."""
    scores: dict[str, dict[float, float]] = {}
    for result in results:
        if not result.error:
            scores.setdefault(result.name, {})[result.learning_rate] = float(np.nanmean(result.solved[1]))
    return {name: max(sorted(found), key=found.__getitem__) for name, found in scores.items()}


def read_rates(folder: Path) -> dict[str, float]:
    """Raises UserError where a search was begun and not finished: runs of the report would miss its rates."""
    file = folder / "rates.json"
    if file.exists():
        return json.loads(file.read_text())
    if (folder / "search").exists():
        raise UserError(f"the search in {folder} is not done: run the command with --learning-rates again, every part")
    return {}


def read_result(file: Path) -> Result:
    try:
        return Result(**json.loads(file.read_text()))
    except (TypeError, ValueError) as error:
        raise UserError(f"{file} is no result of this version ({error}); delete it") from error


def tasks(names: Sequence[str]) -> dict[str, Task]:
    """By name: those of configs/gym, or files of yours."""
    found = {}
    for name in names:
        file = Path(name) if name.endswith(".yaml") else FOLDER / f"{name}.yaml"
        found[file.stem] = read_task(file)
    return found


def _write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    draft.write_text(json.dumps(content) + "\n")
    draft.replace(file)


def _line(result: Result, known: bool) -> str:
    if result.error:
        return f"failed: {result.error.splitlines()[0]}" + (" (done before)" if known else "")
    before, after = (float(np.nanmean(values)) for values in result.solved)
    return f"{before:.3f} -> {after:.3f}" + (" (done before)" if known else f" in {result.seconds:.0f} s")


def _silent() -> Console:
    return Console(file=io.StringIO())
