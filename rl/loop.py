"""The way of the data: prompts -> rollout -> reward -> advantage -> learner -> weights -> rollout.

One process, plain futures, `ray.wait` as the event loop. What is generated, by which policy and with which noise is
arithmetic on the ticket number (`rl.schedule`), so nothing here depends on timing: a lost ticket is issued again and is
the same. `max_staleness` is the only difference between synchronous and asynchronous training.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import ray

from cluster.placement import ClusterError
from configs.schema import Config
from rl.actors import GroupReference
from rl.advantages import advantages, has_signal
from rl.evaluate import Evaluation, evaluation_sampler
from rl.learner import LearnerError
from rl.processes import ActorDied, Processes, gather, result_of
from rl.prompts import PromptSource
from rl.run import Run
from rl.schedule import Schedule, Ticket, TicketKind, evaluation_tickets, sample_uid
from rollout.groups import Origin
from rollout.worker import Completions, RolloutRequest

MAX_ATTEMPTS = 3
"""Times a ticket is issued before the run stops: a ticket that kills its worker three times is at fault itself."""
TICK_SECONDS = 1.0
GATE = {"fp32": 1e-4, "bf16": 5e-2}
"""Largest |recorded - recomputed| log-probability that training starts with."""


@dataclass
class Job:
    """One call in flight."""

    ticket: Ticket
    actor: str
    references: list[ray.ObjectRef]
    """Trajectories, then completions (rollout); scores (reward)."""
    started: float = field(default_factory=time.monotonic)


@dataclass
class Scored:
    """A finished ticket. Trajectories stay in the object store; only small things are here."""

    ticket: Ticket
    trajectories: list[ray.ObjectRef]
    completions: Completions
    rewards: np.ndarray
    """(problems, samples) float64, NaN where unscored"""
    terms: dict[str, np.ndarray]
    failures: list[Any]


class Loop:
    def __init__(
        self, config: Config, processes: Processes, train: PromptSource, evaluation: PromptSource | None, run: Run
    ) -> None:
        self.config, self.processes, self.train, self.evaluation, self.run = config, processes, train, evaluation, run
        self.schedule = Schedule(
            seed=config.run.seed,
            num_problems=len(train.problems),
            prompts_per_update=config.rollout.prompts_per_update,
            prompts_per_ticket=config.rollout.prompts_per_ticket,
            group_size=config.rollout.group_size,
            max_staleness=config.rollout.max_staleness,
            updates=config.run.updates,
        )
        self.update = 0
        self.next_ticket = 0
        self.weights: dict[int, ray.ObjectRef] = {}
        self.again: deque[Ticket] = deque()
        """Tickets to issue before any new one: evaluations, and those whose worker was lost."""
        self.to_score: deque[tuple[Ticket, list[ray.ObjectRef]]] = deque()
        self.jobs: dict[ray.ObjectRef, Job] = {}
        self.idle = {"rollout": deque(processes.rollout), "reward": deque(processes.reward)}
        self.attempts: dict[tuple[TicketKind, int, int], int] = {}
        self.scored: dict[tuple[TicketKind, int, int], Scored] = {}
        self.checked = False

    def run_to_end(self) -> None:
        self.resume()
        self.publish()
        self.evaluate_if_due()
        while self.update < self.config.run.updates:
            self.update_once()

    def update_once(self) -> None:
        keys = [key(ticket) for ticket in self.schedule.tickets_of(self.update)]
        self.collect(keys)
        tickets = [self.scored.pop(k) for k in keys]
        groups = self.groups(tickets)
        metrics = self.run.batch_metrics(self.update, tickets, len(groups))
        if groups:
            metrics |= self.learn(groups, fresh=all(t.ticket.version == self.update for t in tickets))
        else:
            self.run.note(f"update {self.update}: all rewards within each group are equal, so the weights stay")
        self.finish_update(metrics, tickets)

    def finish_update(self, metrics: dict[str, float], tickets: list[Scored]) -> None:
        self.update += 1
        self.publish()
        self.evaluate_if_due()
        self.run.record(self.update - 1, metrics, tickets)
        self.checkpoint_if_due()

    # prompts -> rollout -> reward

    def collect(self, wanted: list[tuple[TicketKind, int, int]]) -> None:
        """Work until these tickets are scored. Later tickets whose policy exists already are generated meanwhile."""
        while missing := [k for k in wanted if k not in self.scored]:
            self.issue_rollouts()
            self.issue_rewards()
            generating = {key(job.ticket) for job in self.jobs.values() if job.actor in self.processes.rollout}
            queued = {key(ticket) for ticket in self.again}
            blocked_on_rollout = any(k in generating or k in queued for k in missing)
            with self.run.stage("rollout" if blocked_on_rollout else "reward"):
                self.wait_for_any()

    def issue_rollouts(self) -> None:
        while self.idle["rollout"] and (ticket := self.take_ticket()):
            name = self.idle["rollout"].popleft()
            actor = self.processes.rollout[name]
            call = actor.run.options(num_returns=len(ticket.problem_indices) + 1)
            references = call.remote(self.request(ticket), self.weights[ticket.version])
            self.jobs[references[-1]] = Job(ticket, name, references)

    def take_ticket(self) -> Ticket | None:
        if self.again:
            return self.again.popleft()
        if self.next_ticket < self.schedule.total_tickets and self.schedule.may_start(self.next_ticket, self.update):
            self.next_ticket += 1
            return self.schedule.ticket(self.next_ticket - 1)
        return None

    def request(self, ticket: Ticket) -> RolloutRequest:
        source = self.source(ticket)
        encoded = [source.encoded(index) for index in ticket.problem_indices]
        return RolloutRequest(
            origin=Origin(ticket.index, ticket.update, ticket.version, ticket.seed),
            prompt_ids=tuple(source.problems[index].id for index in ticket.problem_indices),
            prompts=tuple(encoded),
            uids=tuple(
                sample_uid(ticket.seed, group, sample)
                for group in range(len(encoded))
                for sample in range(ticket.samples)
            ),
            sampler=evaluation_sampler(self.config, ticket.kind),
        )

    def source(self, ticket: Ticket) -> PromptSource:
        if ticket.kind is TicketKind.train:
            return self.train
        assert self.evaluation is not None
        return self.evaluation

    def issue_rewards(self) -> None:
        while self.idle["reward"] and self.to_score:
            ticket, references = self.to_score.popleft()
            name = self.idle["reward"].popleft()
            prompts, columns = self.source(ticket).columns(ticket.problem_indices, ticket.samples)
            scores = self.processes.reward[name].score.remote(references[-1], prompts, columns, ticket.update)
            self.jobs[scores] = Job(ticket, name, [*references, scores])

    def wait_for_any(self) -> None:
        done, _ = ray.wait(list(self.jobs), num_returns=1, timeout=TICK_SECONDS)
        for reference in done:
            job = self.jobs.pop(reference)
            kind = "rollout" if job.actor in self.processes.rollout else "reward"
            self.idle[kind].append(job.actor)
            try:
                result = result_of(reference, job.actor)
            except ActorDied as error:
                self.reissue(job, error)
                continue
            if kind == "rollout":
                self.to_score.append((job.ticket, job.references))
            else:
                self.accept(job, result)
        self.kill_overdue()

    def accept(self, job: Job, scores: Any) -> None:
        shape = (len(job.ticket.problem_indices), job.ticket.samples)
        completions = result_of(job.references[-2], job.actor)
        terms = {name: values.reshape(shape) for name, values in scores.terms.items()}
        self.scored[key(job.ticket)] = Scored(
            job.ticket, job.references[:-2], completions, scores.total.reshape(shape), terms, scores.failures
        )

    def reissue(self, job: Job, error: Exception) -> None:
        """Ray restarts the worker; the same ticket yields the same samples."""
        attempts = self.attempts[key(job.ticket)] = self.attempts.get(key(job.ticket), 1) + 1
        self.run.note(f"{error}; issuing ticket {job.ticket.index} again (attempt {attempts} of {MAX_ATTEMPTS})")
        if attempts > MAX_ATTEMPTS:
            raise ClusterError(
                f"ticket {job.ticket.index} of update {job.ticket.update} was lost {MAX_ATTEMPTS} times: {error}. "
                f"Look for memory (rollout.prompts_per_ticket) or for a prompt or reward that kills its process"
            ) from error
        self.again.appendleft(job.ticket)

    def kill_overdue(self) -> None:
        """A frozen process says nothing, so a deadline ends it; then it is like a dead one."""
        for reference, job in list(self.jobs.items()):
            if time.monotonic() - job.started > self.config.rollout.timeout_seconds:
                del self.jobs[reference]
                handles = self.processes.rollout if job.actor in self.processes.rollout else self.processes.reward
                ray.kill(handles[job.actor], no_restart=False)
                self.idle["rollout" if job.actor in self.processes.rollout else "reward"].append(job.actor)
                seconds = self.config.rollout.timeout_seconds
                self.reissue(job, ClusterError(f"{job.actor} did not answer within {seconds:g} s and was restarted"))

    # advantage -> learner

    def learn(self, groups: list[GroupReference], fresh: bool) -> dict[str, float]:
        """`fresh`: the groups were generated by the present weights."""
        if fresh and not self.checked:
            self.check_parity(groups)
        shares = self.shares(groups)
        with self.run.stage("learn"):
            results = self.on_learners("finish a step", "step", lambda rank: (self.update, shares[rank], fresh))
        return results["learner-0"]

    def groups(self, tickets: list[Scored]) -> list[GroupReference]:
        """Trajectory, advantages and valid samples of every group that can teach something, in ticket order."""
        algorithm = self.config.algorithm
        groups: list[GroupReference] = []
        for ticket in tickets:
            for reference, rewards in zip(ticket.trajectories, ticket.rewards, strict=True):
                advantage, valid = advantages(rewards, algorithm.advantage)
                if valid.any() and (has_signal(rewards) or not algorithm.filter_zero_variance):
                    groups.append((reference, advantage, valid))
        return groups

    def shares(self, groups: list[GroupReference]) -> list[list[list[GroupReference]]]:
        """[rank][minibatch] groups. A rank without a group gets one that weighs nothing, to stay in step."""
        ranks, pieces = len(self.processes.learners), min(self.config.algorithm.minibatches, len(groups))
        bounds = np.linspace(0, len(groups), pieces + 1).astype(int)
        minibatches = [groups[start:stop] for start, stop in pairwise(bounds)]
        reference, advantage, valid = groups[0]
        weightless = (reference, advantage, np.zeros_like(valid))
        return [[minibatch[rank::ranks] or [weightless] for minibatch in minibatches] for rank in range(ranks)]

    def check_parity(self, groups: list[Any]) -> None:
        """Refuse to train when the learner does not reproduce what the rollout recorded."""
        gaps = self.on_learners("replay a sample", "parity_gap", lambda rank: ([groups[rank % len(groups)]],))
        gap, limit = max(gaps.values()), GATE[self.config.model.precision.value]
        if gap > limit:
            raise LearnerError(
                f"replaying fresh samples gives log-probabilities up to {gap:.3g} away from the recorded ones "
                f"(limit {limit:g}): the gradient would be wrong. Likely causes: rollout and learner load different "
                f"weights or precisions, or a model whose forward depends on its batch"
            )
        self.checked = True

    def on_learners(self, what: str, method: str, arguments: Callable[[int], tuple]) -> dict[str, Any]:
        """Call every rank and wait for all; the methods are collective."""
        calls = {
            name: getattr(handle, method).remote(*arguments(rank))
            for rank, (name, handle) in enumerate(self.processes.learners.items())
        }
        try:
            return gather(calls, self.config.cluster.step_timeout_seconds, what)
        except ActorDied as error:
            raise ClusterError(
                f"{error}. Its optimizer state is lost; run the same command again to go on from the newest checkpoint "
                f"in {self.run.checkpoints}"
            ) from error

    # learner -> weights -> rollout

    def publish(self) -> None:
        """Rank 0's weights become the policy of this version; versions that no ticket needs are forgotten."""
        with self.run.stage("weights"):
            calls = {n: h.weights.remote(self.update) for n, h in self.processes.learners.items()}
            ready, _ = ray.wait(
                list(calls.values()), num_returns=len(calls), timeout=self.config.cluster.step_timeout_seconds
            )
            if len(ready) < len(calls):
                late = sorted(name for name, reference in calls.items() if reference not in ready)
                raise ClusterError(f"{', '.join(late)} did not return weights in time")
        self.weights[self.update] = calls["learner-0"]
        oldest = self.update - self.config.rollout.max_staleness
        self.weights = {version: ref for version, ref in self.weights.items() if version >= max(0, oldest)}

    # around the loop

    def evaluate_if_due(self) -> None:
        options, last = self.config.evaluation, self.update == self.config.run.updates
        due = options.every > 0 and (last or self.update % options.every == 0)
        if self.evaluation is None or not due or self.run.evaluated(self.update):
            return
        kinds = {TicketKind.greedy: 1, TicketKind.sampled: options.samples}
        tickets = [
            ticket
            for kind, samples in kinds.items()
            if samples > 0
            for ticket in evaluation_tickets(
                self.config.run.seed,
                self.update,
                len(self.evaluation.problems),
                options.prompts_per_ticket,
                samples,
                kind,
            )
        ]
        self.again.extend(tickets)
        with self.run.stage("evaluate"):
            self.collect([key(ticket) for ticket in tickets])
        scored = [self.scored.pop(key(ticket)) for ticket in tickets]
        self.run.record_evaluation(Evaluation.of(self.update, scored, self.config.reward.solved_at))

    def checkpoint_if_due(self) -> None:
        every, last = self.config.run.checkpoint_every, self.update == self.config.run.updates
        if every == 0 or not (last or self.update % every == 0):
            return
        with self.run.stage("checkpoint"), self.run.new_checkpoint(self.update, self.weights) as folder:
            self.on_learners("save", "save", lambda rank: (str(folder),))

    def resume(self) -> None:
        found = self.run.resume_point()
        if found is None:
            return
        folder, self.update = found
        self.on_learners("load its checkpoint", "load", lambda rank: (str(folder),))
        self.weights = {version: ray.put(packed) for version, packed in self.run.saved_weights(folder).items()}
        self.next_ticket = self.update * self.schedule.tickets_per_update


def key(ticket: Ticket) -> tuple[TicketKind, int, int]:
    return ticket.kind, ticket.update, ticket.index
