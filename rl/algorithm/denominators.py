"""How the sum over decisions becomes a mean. Weights are local to a trajectory; the divisor is global to an update."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from configs.algorithm_options import Denominator
from rl.algorithm.custom import Weighing
from rl.algorithm.scored_rows import ScoredRow
from rollout.trajectory import Trajectory


def row_weights(
    trajectories: Sequence[Trajectory], rows: Sequence[ScoredRow], kind: Denominator | Weighing, draws: int
) -> list[np.ndarray]:
    """(m,) fp32 weight of each row's decisions, 0 where not trained; a loss is their weighted sum over `divisor`, and
    over the number of draws where each draw adds to it."""
    if not isinstance(kind, Denominator):
        weights = [kind(trajectory.mask)[0] for trajectory in trajectories]
        shares = [weights[row.trajectory][row.sample, row.decision] for row in rows]
    elif kind is Denominator.step:
        shares = _step_weights(trajectories, rows, draws)
    else:
        shares = [_shares(trajectories[row.trajectory].mask[row.sample], row, kind) for row in rows]
    return [s if row.emphasis is None else s * row.emphasis for s, row in zip(shares, rows, strict=True)]


def _shares(mask: np.ndarray, row: ScoredRow, kind: Denominator) -> np.ndarray:
    share = 1.0 / max(int(mask.sum()), 1) if kind is Denominator.sequence else 1.0
    return mask[row.decision] * np.float32(share)


def sample_weights(trajectory: Trajectory, kind: Denominator | Weighing) -> np.ndarray:
    """(G,) weight of each sample as a whole: that of its trained decisions together."""
    if not isinstance(kind, Denominator):
        return kind(trajectory.mask)[0].sum(-1)
    if kind in (Denominator.token, Denominator.canvas):
        return trajectory.mask.sum(-1)
    return np.ones(trajectory.group_size)


def divisor(trajectory: Trajectory, kind: Denominator | Weighing) -> float:
    """This trajectory's share of the global divisor."""
    if not isinstance(kind, Denominator):
        return kind(trajectory.mask)[1]
    if kind is Denominator.custom:
        raise ValueError("denominator=custom is a function of the user's: take what rl.algorithm.custom makes of it")
    if kind is Denominator.token:
        return float(trajectory.mask.sum())
    if kind is Denominator.canvas:
        return float(trajectory.mask.size)
    return float(trajectory.group_size)


def _step_weights(trajectories: Sequence[Trajectory], rows: Sequence[ScoredRow], draws: int) -> list[np.ndarray]:
    """1 / (decisions of the step) x 1 / (steps of a draw): sums to one over a sample for any partition of its trace.
    Where only some steps are scored, each counts for as many as its importance says."""
    scored: dict[tuple[int, int], list[np.ndarray]] = defaultdict(list)
    importance: dict[tuple[int, int], list[np.ndarray]] = defaultdict(list)
    masks = [trajectories[row.trajectory].mask[row.sample][row.decision] for row in rows]
    for row, mask in zip(rows, masks, strict=True):
        scored[row.trajectory, row.sample].append(row.step[mask])
        importance[row.trajectory, row.sample].append(np.full(mask.sum(), row.importance))
    counts, totals = {}, {}
    for sample, steps in scored.items():
        names, first, decisions = np.unique(np.concatenate(steps), return_index=True, return_counts=True)
        counts[sample] = dict(zip(names.tolist(), decisions.tolist(), strict=True))
        totals[sample] = np.concatenate(importance[sample])[first].sum()
    weights = []
    for row, mask in zip(rows, masks, strict=True):
        sample = row.trajectory, row.sample
        decisions_of = np.array([counts[sample].get(step, 1) for step in row.step.tolist()], np.float32)
        weights.append(mask * np.float32(draws) / (decisions_of * np.float32(max(totals[sample], 1))))
    return weights
