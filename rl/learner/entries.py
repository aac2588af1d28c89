"""From scored rows and what their groups are worth to what a loss is made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from configs.algorithm_options import Denominator
from rl.algorithm.custom import Weighing
from rl.algorithm.decisions import Entry
from rl.algorithm.denominators import row_weights, sample_weights
from rl.algorithm.scored_rows import ScoredRow
from rl.learner.groups import Group


def entries_of(
    rows: Sequence[ScoredRow],
    groups: Sequence[Group],
    shares: Sequence[float],
    denominator: Denominator | Weighing,
    draws: int,
) -> list[Entry]:
    """One a row, in order.

    Args:
        rows: of the groups' trajectories, whose places in `groups` they name.
        groups: as `Group.trained` leaves them: (g, D) advantages of decisions.
        shares: of each group in the mean over the global minibatch: 1 / the divisor, or 0 for one that only keeps ranks
            in step.
        draws: of the likelihood.
    """
    trajectories = [group.trajectory for group in groups]
    first = np.cumsum([0] + [trajectory.group_size for trajectory in trajectories])
    weights = row_weights(trajectories, rows, denominator, draws)
    of_samples = [sample_weights(trajectory, denominator) for trajectory in trajectories]
    lengths = [trajectory.mask.sum(-1) for trajectory in trajectories]
    scored = {(row.trajectory, row.sample) for row in rows}
    unscored = [
        sum(float(weight) for sample, weight in enumerate(of_group) if (group, sample) not in scored)
        for group, of_group in enumerate(of_samples)
    ]
    entries = []
    for row, weight in zip(rows, weights, strict=True):
        group, sample = row.trajectory, row.sample
        advantage = groups[group].advantage[sample, row.decision].astype(np.float32)
        imitated = groups[group].imitated
        entries.append(
            Entry(
                row=row,
                sample=int(first[group]) + sample,
                group=group,
                length=int(lengths[group][sample]),
                weight=(weight * shares[group]).astype(np.float32),
                sample_weight=float(of_samples[group][sample]) * shares[group],
                unscored_weight=unscored[group] * shares[group],
                advantage=advantage,
                imitated=advantage > 0 if imitated is None else np.full(len(advantage), imitated[sample]),
                recorded=trajectories[group].logp[sample, row.decision],
            )
        )
    return entries
