"""Offline training: data -> learner -> weights, and the same evaluation as in reinforcement learning.

What the data hold for a problem is a group like a rollout's, with advantages that are known beforehand: supervised
fine-tuning has groups of one demonstration with advantage 1, learning from preferences has groups of two, the chosen
answer with +1 and the rejected one with -1. Minus the denoising loss is the estimate of an answer's log-likelihood.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from rl.algorithm.advantages import OFFLINE_ADVANTAGES
from rl.data.tickets import Ticket, TicketKind, derive_seed
from rl.driver.actors import GroupReference
from rl.driver.loop import Loop
from rl.run.scored import Scored


class OfflineLoop(Loop):
    """The same loop with the first half of the way replaced: an update's groups come from the data set."""

    reader: ThreadPoolExecutor
    following: Future[list[GroupReference]] | None = None
    """Groups of the next update."""

    def run_to_end(self) -> None:
        self.reader = ThreadPoolExecutor(1)
        try:
            super().run_to_end()
        finally:
            self.reader.shutdown(wait=False, cancel_futures=True)  # what it reads may hang

    def update_once(self) -> tuple[dict[str, float], list[Scored]]:
        groups = self.groups_of(self.update) if self.following is None else self.following.result()
        if self.update + 1 < self.config.run.updates:  # read while the learners work
            self.following = self.reader.submit(self.groups_of, self.update + 1)
        with self.run.stage("learn"):
            return self.learners.step(self.update, groups, fresh=False), []

    def groups_of(self, update: int) -> list[GroupReference]:
        return [
            self.group(ticket, place, update)
            for ticket in self.schedule.tickets_of(update)
            for place in range(len(ticket.problem_indices))
        ]

    def group(self, ticket: Ticket, place: int, update: int) -> GroupReference:
        problem = self.generation.sources[TicketKind.train].problems[ticket.problem_indices[place]]
        seed = derive_seed(ticket.seed, "corruption", place)
        trajectory = self.generation.modality.offline_group(problem, seed, update)
        advantage = np.array(OFFLINE_ADVANTAGES[self.config.algorithm.advantage], np.float32)
        return GroupReference(trajectory, advantage, np.ones(trajectory.group_size, bool))

    def tickets(self) -> Iterator[Ticket | None]:
        """Only evaluations are generated."""
        return iter(())
