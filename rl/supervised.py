"""Supervised fine-tuning: demonstrations -> learner -> weights, and the same evaluation as in reinforcement learning.

It is the cell elbo x none x weighted x constant of the grid: a demonstration is a trajectory with advantage one, and
minus its denoising loss is the log-likelihood that the learner maximises.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from models.text import TextSpec
from rl.actors import GroupReference
from rl.encode import encode_response
from rl.generation import Scored
from rl.loop import Loop
from rl.prompts import PromptSource
from rl.schedule import Ticket, derive_seed
from rollout.demonstrations import demonstration
from rollout.trajectory import TextTrajectory


class SupervisedLoop(Loop):
    """The same loop with the first half of the way replaced: an update's groups come from the data set."""

    def __init__(self, source: PromptSource, spec: TextSpec, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.source = source
        self.spec = spec

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

    def demonstration(self, ticket: Ticket, place: int) -> TextTrajectory:
        index = ticket.problem_indices[place]
        problem = self.source.problems[index]
        assert problem.response is not None  # checked with the configuration
        limit = self.config.rollout.sampler.max_new_tokens
        return demonstration(
            problem.id,
            self.source.encoded(index),
            encode_response(self.source.tokenizer, problem.response, self.spec.stop_ids, limit, problem.id),
            self.spec,
            limit,
            derive_seed(ticket.seed, "corruption", place),
            self.update,
        )
