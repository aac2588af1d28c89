"""Training by reward gradients: prompts -> learner -> weights, and the same evaluation as in reinforcement learning.

The learners draw the samples themselves, because the gradient runs through the drawing. An update therefore needs no
more than captions, dataset columns and noise keys, which are arithmetic on the ticket number like everything else.
"""

from __future__ import annotations

import numpy as np

from rl.data.tickets import TicketKind, sample_uid
from rl.driver.actors import GroupReference
from rl.driver.offline import OfflineLoop
from rl.likelihood.image_reward_gradient import undrawn
from rl.run.scored import Scored


class RewardGradientLoop(OfflineLoop):
    """Undrawn groups in place of the data's answers."""

    def update_once(self) -> tuple[dict[str, float], list[Scored]]:
        metrics, tickets = super().update_once()
        # The loss is minus the mean reward of the images that were drawn for it, before the weights change.
        return {**metrics, "reward/mean": -metrics["learner/loss"]}, tickets

    def groups_of(self, update: int) -> list[GroupReference]:
        source = self.generation.sources[TicketKind.train]
        groups: list[GroupReference] = []
        for ticket in self.schedule.tickets_of(update):
            for place, index in enumerate(ticket.problem_indices):
                problem = source.problems[index]
                uids = [sample_uid(ticket.seed, place, sample) for sample in range(ticket.samples)]
                prompt, columns = source.encoded(index), dict(problem.columns)
                trajectory = undrawn(problem.id, prompt.caption, columns, uids, update, prompt.user)
                groups.append(GroupReference(trajectory, np.ones(len(uids), np.float32), np.ones(len(uids), bool)))
        return groups
