"""Supervised fine-tuning: demonstrations -> learner -> weights, and the same evaluation as in reinforcement learning.

It is the cell elbo x none x weighted x constant of the grid: a demonstration is a trajectory with advantage one, and
minus its denoising loss is the log-likelihood that the learner maximises.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from rl.actors import GroupReference
from rl.generation import Scored
from rl.loop import Loop
from rl.schedule import Ticket, TicketKind, derive_seed
from rollout.trajectory import Trajectory


class SupervisedLoop(Loop):
    """The same loop with the first half of the way replaced: an update's groups come from the data set."""

    reader: ThreadPoolExecutor
    following: Future[list[GroupReference]] | None = None
    """Groups of the next update."""

    def run_to_end(self) -> None:
        with ThreadPoolExecutor(1) as self.reader:
            super().run_to_end()

    def update_once(self) -> tuple[dict[str, float], list[Scored]]:
        groups = self.groups_of(self.update) if self.following is None else self.following.result()
        if self.update + 1 < self.config.run.updates:  # read while the learners work
            self.following = self.reader.submit(self.groups_of, self.update + 1)
        with self.run.stage("learn"):
            return self.learners.step(self.update, groups, fresh=False), []

    def groups_of(self, update: int) -> list[GroupReference]:
        return [
            (self.demonstration(ticket, place, update), np.ones(1, np.float32), np.ones(1, bool))
            for ticket in self.schedule.tickets_of(update)
            for place in range(len(ticket.problem_indices))
        ]

    def tickets(self) -> Iterator[Ticket | None]:
        """Only evaluations are generated."""
        return iter(())

    def demonstration(self, ticket: Ticket, place: int, update: int) -> Trajectory:
        source = self.generation.sources[TicketKind.train]
        problem = source.problems[ticket.problem_indices[place]]
        return source.modality.demonstration(problem, derive_seed(ticket.seed, "corruption", place), update)
