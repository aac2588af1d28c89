"""Supervised fine-tuning: demonstrations -> learner -> weights, and the same evaluation as in reinforcement learning.

It is the cell elbo x none x weighted x constant of the grid: a demonstration is a trajectory with advantage one, and
minus its denoising loss is the log-likelihood that the learner maximises.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rl.actors import GroupReference
from rl.generation import Scored
from rl.loop import Loop
from rl.schedule import Ticket, TicketKind, derive_seed
from rollout.trajectory import Trajectory


class SupervisedLoop(Loop):
    """The same loop with the first half of the way replaced: an update's groups come from the data set."""

    def update_once(self) -> tuple[dict[str, float], list[Scored]]:
        groups: list[GroupReference] = [
            (self.demonstration(ticket, place), np.ones(1, np.float32), np.ones(1, bool))
            for ticket in self.schedule.tickets_of(self.update)
            for place in range(len(ticket.problem_indices))
        ]
        with self.run.stage("learn"):
            return self.learners.step(self.update, groups, fresh=False), []

    def tickets(self) -> Iterator[Ticket | None]:
        """Only evaluations are generated."""
        return iter(())

    def demonstration(self, ticket: Ticket, place: int) -> Trajectory:
        source = self.generation.sources[TicketKind.train]
        problem = source.problems[ticket.problem_indices[place]]
        return source.modality.demonstration(problem, derive_seed(ticket.seed, "corruption", place), self.update)
