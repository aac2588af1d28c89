"""The same training without Ray: one process, the same loop, workers and learner, called directly.

For many short runs, where starting processes would take longer than the run itself (`rl.gym`, tests). A worker that
dies takes the run with it, and nothing runs at the same time as anything else.
"""

from __future__ import annotations

import atexit
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console

from cluster.signals import listening
from cluster.weights import PackedWeights
from configs.compose import Composed
from configs.errors import RUN_FOLDER, UserError
from configs.schema import Config
from rl.data.tickets import Ticket
from rl.driver.actors import LearnerActor, RewardActor, RolloutActor
from rl.driver.generation import Generation, key
from rl.driver.learners import Learners
from rl.driver.processes import PRINTED, Processes
from rl.driver.train import planned, print_summary
from rl.learner.engine import join_group, open_store
from rl.modality.trial import Trial, trial_of
from rl.run.callback import Callback
from rl.run.metrics import Row, read_rows
from rl.run.scored import Scored
from rl.serving.judge import FOLDER, JudgeActor

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Trained:
    metrics: list[Row]
    """One row an update."""
    evaluations: list[dict[str, Any]]
    weights: PackedWeights
    """What the learner published last."""


def train_in_process(
    composed: Composed,
    console: Console | None = None,
    before: dict[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
    shown: bool = False,
) -> Trained:
    """`rl.driver.train.train` in this process, with one learner, one rollout worker and one reward worker: the same
    run folder, checkpoints and resume, and the same weights to the bit.

    Args:
        console: where the run speaks; None is the terminal.
        before: the first evaluation, of a run whose policy was the same before training; it is not made again.
        shown: speak there of progress and of the end, as a run on Ray does.
    """
    began = time.perf_counter()
    with listening():
        return _trained(composed, console, before, callbacks, shown, began)


def _trained(
    composed: Composed,
    console: Console | None,
    before: dict[str, Any] | None,
    callbacks: Sequence[Callback],
    shown: bool,
    began: float,
) -> Trained:
    config = composed.config
    if config.cluster.learners != 1:
        raise UserError(
            f"cluster.learners={config.cluster.learners}: one process holds one learner; set it to 1, or train on Ray"
        )
    plan = planned(composed)
    run = plan.new_run(console, callbacks, began)
    if before is not None:
        run.evaluations.write(before)
    try:
        trial, printed = trial_of(config, plan.modality, plan.sources), run.folder / PRINTED
        calling = called_directly(config, trial=trial, printed=printed)
        with run.place.ending():
            with process_group(), calling as processes, run.progress if shown else nullcontext():
                run.start.done("everything is loaded")
                run.start_is_over()
                generation = DirectGeneration(config, processes, plan.modality, plan.sources, run.stage, run.note)
                learners = DirectLearners(config, processes.learners, run.note)
                loop = plan.loop(config, plan.schedule, generation, learners, run)
                loop.run_to_end()
            summary = run.summarise()
        if shown:
            print_summary(run, summary)
        rows = read_rows(run.folder / "metrics.jsonl")
        return Trained(rows, run.evaluations.rows, generation.weights[loop.update])
    except Exception as error:
        error.add_note(f"{RUN_FOLDER}{run.folder}")
        raise
    finally:
        run.close()
        gc.collect()  # DeepSpeed's engine refers to itself, and holds the policy


@contextmanager
def process_group() -> Iterator[None]:
    """One rank that DeepSpeed can train in, in this process. It stays until the process ends, for all that want one:
    DeepSpeed keeps hold of the first group that it sees."""
    if not dist.is_initialized():
        store = open_store(HOST)
        join_group(HOST, store.port, 0, 1, 60, torch.device("cpu"))
        atexit.register(_leave, store)
    yield


def _leave(store: dist.TCPStore) -> None:  # which must not be closed before
    dist.destroy_process_group()


@contextmanager
def called_directly(
    config: Config, *, learning: bool = True, trial: Trial | None = None, printed: Path | None = None
) -> Iterator[Processes]:
    """The actors of a run as plain objects. Rewards still have a child process of their own, which ends here.

    Args:
        trial: a first call of the rewards.
        printed: folder for what they print.
    """
    threads = config.cluster.threads or 1
    judge = None
    if config.judge is not None:
        judge = JudgeActor(config.judge, printed and printed.parent / FOLDER / "server.txt", here=True)
    rollout = RolloutActor(config, threads)
    reward = RewardActor(config, printed and printed / "reward-0.txt", None if judge is None else judge.served)
    learners = {"learner-0": LearnerActor(config, 0, threads)} if learning else {}
    try:
        reward.ready()
        if trial is not None:
            reward.try_out(trial)
        rollout.ready()
        for learner in learners.values():
            learner.load_policy()
        yield Processes({"rollout-0": rollout}, {"reward": {"reward-0": reward}}, learners)
    finally:
        reward.worker.close()
        if judge is not None:
            judge.server.stop()


class DirectGeneration(Generation):
    """Tickets one after the other, in the order in which they were asked for."""

    def adopt(self, weights: PackedWeights) -> None:
        self.weights[weights.version] = weights

    def collect(self, tickets: list[Ticket]) -> list[Scored]:
        wanted = [key(ticket) for ticket in tickets]
        while any(each not in self._scored for each in wanted):
            ticket = self._next_ticket()
            assert ticket is not None  # the schedule publishes a policy before its tickets are collected
            self._scored[key(ticket)] = self._generated(ticket)
        return [self._scored.pop(each) for each in wanted]

    def _generated(self, ticket: Ticket) -> Scored:
        rollout, reward = self.processes.rollout["rollout-0"], self.processes.reward["reward"]["reward-0"]
        with self.stage("rollout"):
            *trajectories, completions, statistics = rollout.run(self._request(ticket), self.weights[ticket.version])
        with self.stage("reward"):
            prompts, columns = self._columns(ticket)
            scores, steps = reward.score(completions, prompts, columns, ticket, self.answer_seconds)
        return Scored.of(ticket, trajectories, completions, statistics, scores, steps)


class DirectLearners(Learners):
    def publish(self, version: int) -> Any:
        return self.handles["learner-0"].weights(version)

    def _call(self, what: str, method: str, arguments: Callable[[int], tuple]) -> dict[str, Any]:
        return {
            name: getattr(handle, method)(*arguments(rank)) for rank, (name, handle) in enumerate(self.handles.items())
        }
