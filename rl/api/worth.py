"""Groups as the learner trains on them, out of trajectories and arrays of advantages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from configs.errors import UserError
from rl.api.scored import Array, to_numpy
from rl.learner.groups import Group
from rollout.trajectory import Trajectory


def worth(
    trajectories: Sequence[Trajectory], advantages: Array, solved: Array | None
) -> tuple[list[Group], dict[tuple[int, int], tuple[int, int]]]:
    """
    Args:
        advantages: (G,) or (groups, G) or (groups, G, T), NaN where left out.

    Returns:
        The groups that have something to train, and where in them each (group, sample) is that is left.

    Raises:
        UserError: the shapes do not fit, or nothing is left.
    """
    values = _per_group(advantages, trajectories, "advantages")
    outcomes = [None] * len(values) if solved is None else _per_group(solved, trajectories, "solved")
    groups: list[Group] = []
    place: dict[tuple[int, int], tuple[int, int]] = {}
    for index, (trajectory, value, outcome) in enumerate(zip(trajectories, values, outcomes, strict=True)):
        valid = ~np.isnan(value)
        imitated = None if outcome is None else outcome == 1
        group = Group(trajectory, np.where(valid, value, 0.0).astype(np.float32), valid, imitated)
        trained = group.trained()
        if trained is None:
            continue
        for new, old in enumerate(group.trained_samples()):
            place[index, int(old)] = len(groups), new
        groups.append(trained)
    if not groups:
        raise UserError(
            "all advantages are NaN, or belong to samples without decisions: there is nothing to learn from"
        )
    return groups, place


def _per_group(values: Array, trajectories: Sequence[Trajectory], what: str) -> list[np.ndarray]:
    """(G,) or (G, T) of each group."""
    whole = [to_numpy(each) for each in values] if isinstance(values, list | tuple) else list(to_numpy(values))
    sizes = [trajectory.group_size for trajectory in trajectories]
    if len(trajectories) == 1 and whole and np.ndim(whole[0]) == 0:  # (G,) of the only group
        whole = [np.array(whole)]
    if len(whole) != len(sizes) or any(np.shape(each)[:1] != (size,) for each, size in zip(whole, sizes, strict=True)):
        shapes = [np.shape(each) for each in whole[:4]]
        raise UserError(
            f"{what} are of {len(whole)} groups of shapes {shapes}..., and there are groups of {sizes} samples"
        )
    return [np.asarray(each, np.float64) for each in whole]
