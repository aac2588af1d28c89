"""prompts -> rollout -> reward: keeps rollout and reward workers busy until the wanted tickets are scored.

Plain futures and one `ray.wait`. A ticket's samples are a pure function of the ticket and of the weights that travel
with it, so a ticket whose worker was lost is simply issued again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import ray

from cluster.joining import ClusterError
from cluster.objects import fetched
from cluster.weights import PackedWeights
from configs.schema import Config
from rewards.conversation import Prompt
from rewards.scoring.combination import combine
from rewards.scoring.scores import Scores, TermScores
from rl.data.prompts import PromptSource
from rl.data.tickets import Ticket, TicketKind, sample_uid
from rl.driver.processes import ActorDied, Processes, died_starting, result_of
from rl.modality.protocol import Modality, recording_of
from rl.run.scored import Scored
from rl.serving.judge import Watch
from rollout.worker import Origin, RolloutRequest

MAX_ATTEMPTS = 3
"""Times a ticket is issued to one kind of worker before the run stops: a ticket that loses its worker three times is at
fault itself. One that is scored in several pools may lose a worker of each with a node, and is not."""
TICK_SECONDS = 1.0
RESTART_POLL_SECONDS = 0.2
ANSWERED = 0.75
"""Share of a reward worker's deadline in which it answers by itself, so that it is killed only when it is frozen."""
ROLLOUT = "rollout"
TicketKey = tuple[TicketKind, int, int]


def key(ticket: Ticket) -> TicketKey:
    return ticket.kind, ticket.update, ticket.index


@dataclass
class Job:
    """One call in flight."""

    ticket: Ticket
    worker: str
    kind: str
    """`rollout`, or that of a pool of rewards"""
    references: list[ray.ObjectRef]
    """Trajectories, then completions, then statistics, then (of rewards) scores."""
    started: float = field(default_factory=time.monotonic)


@dataclass
class Restart:
    """A worker that Ray is starting again."""

    worker: str
    kind: str
    started: float = field(default_factory=time.monotonic)


class Generation:
    def __init__(
        self,
        config: Config,
        processes: Processes,
        modality: Modality,
        sources: dict[TicketKind, PromptSource],
        stage: Callable[[str], AbstractContextManager[None]],
        note: Callable[[str], None],
    ) -> None:
        """
        Args:
            stage: a context manager that counts its block's seconds for a named stage.
            note: shows a line to the user.
        """
        self.config = config
        self.processes = processes
        self.modality = modality
        self.sources = sources
        self.stage = stage
        self.note = note
        self.weights: dict[int, Any] = {}
        """Published policy versions, where they lie; the weights themselves where everything is one process."""
        self._ahead: Iterator[Ticket | None] = iter(())
        self._first: deque[Ticket] = deque()
        """Tickets to issue before any other: evaluations, and those whose worker was lost."""
        self._to_score: dict[str, deque[Job]] = {pool: deque() for pool in processes.reward}
        self._parts: dict[TicketKey, dict[str, TermScores]] = {}
        """What pools have said of tickets that others still score."""
        self._jobs: dict[ray.ObjectRef, Job] = {}
        self._restarts: dict[ray.ObjectRef, Restart] = {}
        self._workers = {ROLLOUT: processes.rollout, **processes.reward}
        self._idle = {kind: deque(workers) for kind, workers in self._workers.items()}
        seconds, sample = config.rollout.timeout_seconds, config.reward.longest_seconds
        reward_seconds = max(seconds, 4 * sample)
        self.deadlines = {ROLLOUT: seconds, **dict.fromkeys(processes.reward, reward_seconds)}
        """Seconds, by kind of job. A reward worker needs one sample's deadline for a batch that hangs, another one to
        find the sample."""
        self.answer_seconds = ANSWERED * reward_seconds
        self._watch = Watch(processes.judge, note)
        self._attempts: dict[tuple[TicketKey, str], int] = {}
        self._scored: dict[TicketKey, Scored] = {}

    def adopt(self, weights: PackedWeights) -> None:
        """Generate with weights that no learner of this run has published."""
        self.weights[weights.version] = ray.put(weights)

    def stream(self, tickets: Iterator[Ticket | None]) -> None:
        """Training tickets, to be issued in this order whenever a worker is idle. None: the next one's policy is not
        published yet."""
        self._ahead = tickets

    def ask(self, tickets: list[Ticket]) -> None:
        """Issue these before the stream's."""
        self._first.extend(tickets)

    def collect(self, tickets: list[Ticket]) -> list[Scored]:
        """Work until these tickets are scored; later ones are generated meanwhile, if their policy exists already."""
        wanted = [key(ticket) for ticket in tickets]
        while missing := [k for k in wanted if k not in self._scored]:
            self._issue_rollouts()
            self._issue_rewards()
            with self.stage("rollout" if self._generating(missing) else "reward"):
                self._wait_for_any()
        return [self._scored.pop(k) for k in wanted]

    def _generating(self, missing: list[TicketKey]) -> bool:
        """Whether the wanted tickets wait for rollout workers rather than for rewards."""
        waiting = [job for jobs in self._to_score.values() for job in jobs]
        scoring = {key(job.ticket) for job in [*self._jobs.values(), *waiting] if job.kind != ROLLOUT}
        return any(k not in scoring for k in missing)

    def _issue_rollouts(self) -> None:
        while self._idle[ROLLOUT] and (ticket := self._next_ticket()):
            name = self._idle[ROLLOUT].popleft()
            request = self._request(ticket)
            groups = len(ticket.problem_indices) * self.modality.groups_per_prompt(ticket.kind)
            trajectories = groups if request.recording.trajectories else 0
            call = self.processes.rollout[name].run.options(num_returns=trajectories + 2)
            references = call.remote(request, self.weights[ticket.version])
            self._jobs[references[-1]] = Job(ticket, name, ROLLOUT, references)

    def _columns(self, ticket: Ticket) -> tuple[list[Prompt], dict[str, list[Any]]]:
        """What rewards see of the problem of each sample."""
        samples = ticket.samples * self.modality.groups_per_prompt(ticket.kind)
        return self.sources[ticket.kind].columns(ticket.problem_indices, samples)

    def _next_ticket(self) -> Ticket | None:
        return self._first.popleft() if self._first else next(self._ahead, None)

    def _request(self, ticket: Ticket) -> RolloutRequest:
        source = self.sources[ticket.kind]
        prompts = tuple(source.encoded(index) for index in ticket.problem_indices)
        return RolloutRequest(
            origin=Origin(ticket.index, ticket.update, ticket.version, ticket.seed),
            prompt_ids=tuple(source.problems[index].id for index in ticket.problem_indices),
            prompts=prompts,
            uids=tuple(
                sample_uid(ticket.seed, group, sample)
                for group in range(len(prompts))
                for sample in range(ticket.samples)
            ),
            sampler=self.modality.sampler(ticket.kind),
            recording=recording_of(self.config.algorithm, ticket.kind),
            candidates=self.config.rollout.step_candidates if ticket.kind is TicketKind.train else None,
            tree=self.modality.tree(ticket.update) if ticket.kind is TicketKind.train else None,
        )

    def _issue_rewards(self) -> None:
        for pool, jobs in self._to_score.items():
            while self._idle[pool] and jobs:
                job = jobs.popleft()
                name = self._idle[pool].popleft()
                prompts, columns = self._columns(job.ticket)
                call = self.processes.reward[pool][name].score
                scores = call.remote(job.references[-2], prompts, columns, job.ticket, self.answer_seconds)
                self._jobs[scores] = Job(job.ticket, name, pool, [*job.references, scores])

    def _wait_for_any(self) -> None:
        self._watch.look()
        done, _ = ray.wait([*self._jobs, *self._restarts], num_returns=1, timeout=TICK_SECONDS)
        for reference in done:
            if reference in self._restarts:
                self._finish_restart(reference)
            else:
                self._finish_job(reference)
        self._kill_overdue()

    def _finish_job(self, reference: ray.ObjectRef) -> None:
        job = self._jobs.pop(reference)
        try:
            result = result_of(reference, job.worker)
        except ActorDied as error:
            self._restart(Restart(job.worker, job.kind))
            self._reissue(job, error)
            return
        self._idle[job.kind].append(job.worker)
        if job.kind == ROLLOUT:
            for pool, jobs in self._to_score.items():
                jobs.append(Job(job.ticket, "", pool, job.references))
        else:
            self._accept(job, result)

    def _restart(self, restart: Restart) -> None:
        """Ray starts the process again by itself; the worker gets no ticket before it answers."""
        self._restarts[self._workers[restart.kind][restart.worker].ready.remote()] = restart

    def _finish_restart(self, reference: ray.ObjectRef) -> None:
        restart = self._restarts.pop(reference)
        try:
            result_of(reference, restart.worker)
            self._idle[restart.kind].append(restart.worker)
        except ActorDied as error:
            limit = self.config.cluster.startup_timeout_seconds
            if time.monotonic() - restart.started > limit:
                raise ClusterError(
                    f"{restart.worker} did not come back within {limit:g} s: {error}. {died_starting()}"
                ) from error
            time.sleep(RESTART_POLL_SECONDS)
            self._restart(restart)

    def _accept(self, job: Job, found: tuple[Scores | TermScores, np.ndarray | None]) -> None:
        *trajectories, completions, statistics, _ = job.references
        scores, steps = found
        if isinstance(scores, TermScores):
            parts = self._parts.setdefault(key(job.ticket), {})
            parts[job.kind] = scores
            if len(parts) < len(self._to_score):
                return
            del self._parts[key(job.ticket)]
            scores = self._combined(job.ticket, parts, completions)
        sums = result_of(statistics, job.worker)
        self._scored[key(job.ticket)] = Scored.of(job.ticket, trajectories, completions, sums, scores, steps)

    def _combined(self, ticket: Ticket, parts: dict[str, TermScores], completions: ray.ObjectRef) -> Scores:
        reward = self.config.reward
        learning = ticket.kind is TicketKind.train

        @cache
        def outputs() -> Sequence[Any]:
            return fetched(completions).outputs

        found = TermScores.of_parts([parts[pool] for pool in self._to_score], list(reward.weights()))
        return combine(found, reward, lambda index: outputs()[index], ticket.update if learning else None)

    def _kill_overdue(self) -> None:
        """A frozen process says nothing, so a deadline ends it; then it is like a dead one."""
        for reference, job in list(self._jobs.items()):
            seconds = self.deadlines[job.kind]
            if time.monotonic() - job.started > seconds:
                del self._jobs[reference]
                ray.kill(self._workers[job.kind][job.worker], no_restart=False)
                self._restart(Restart(job.worker, job.kind))
                self._reissue(job, ClusterError(f"{job.worker} did not answer within {seconds:g} s; it was restarted"))

    def _reissue(self, job: Job, error: Exception) -> None:
        """The same ticket yields the same samples. After a lost reward worker the finished ones are scored again."""
        ticket = job.ticket
        issued = key(ticket), job.kind
        attempt = self._attempts[issued] = self._attempts.get(issued, 1) + 1
        if attempt > MAX_ATTEMPTS:
            whose = f"{job.kind} of ticket {ticket.index} of update {ticket.update}"
            raise ClusterError(
                f"{whose} was lost {MAX_ATTEMPTS} times: {error}. Lower "
                f"rollout.prompts_per_ticket if memory is full, raise rollout.timeout_seconds if that is too "
                f"short, or mend a prompt or reward that kills its process"
            ) from error
        self.note(f"{error}; {job.kind} of ticket {ticket.index} starts again ({attempt} of {MAX_ATTEMPTS})")
        if job.kind == ROLLOUT:
            self._first.appendleft(ticket)
        else:
            self._to_score[job.kind].appendleft(Job(ticket, "", job.kind, job.references[:-1]))
