"""How the sum over decisions becomes a mean. Weights are local to a trajectory; the divisor is global to an update."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from configs.algorithm_options import Denominator
from rl.algorithm.custom import Weighing
from rl.algorithm.scored_rows import ScoredRow
from rollout.trajectory import Trajectory

OF_ROWS = (Denominator.row, Denominator.row_length)
"""Those that count rows of samples, which are known when the likelihood has made them (`rows_divisor`)."""


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
    elif kind is Denominator.row:
        shares = [share * np.float32(draws) for share in _means_within(_states(trajectories, rows), trajectories, rows)]
    else:
        shares = [_shares(trajectories[row.trajectory].mask[row.sample], row, kind) for row in rows]
    return [s if row.emphasis is None else s * row.emphasis for s, row in zip(shares, rows, strict=True)]


def _shares(mask: np.ndarray, row: ScoredRow, kind: Denominator) -> np.ndarray:
    share = 1.0 / max(int(mask.sum()), 1) if kind is Denominator.sequence else 1.0
    return mask[row.decision] * np.float32(share)


State = tuple[int, int, int]
"""Trajectory, sample, and the state of the sample that scores some of its decisions."""


def _state(row: ScoredRow) -> np.ndarray:
    return row.step if row.state is None else row.state


def _states(trajectories: Sequence[Trajectory], rows: Sequence[ScoredRow]) -> dict[State, tuple[int, float]]:
    """How many trained decisions each state scores, and what it stands for where only some are scored."""
    found: dict[State, tuple[int, float]] = {}
    for row in rows:
        trained = trajectories[row.trajectory].mask[row.sample][row.decision]
        for state, count in zip(*np.unique(_state(row)[trained], return_counts=True), strict=True):
            key = row.trajectory, row.sample, int(state)
            found[key] = found.get(key, (0, 0.0))[0] + int(count), row.importance
    return found


def _means_within(
    states: dict[State, tuple[int, float]], trajectories: Sequence[Trajectory], rows: Sequence[ScoredRow]
) -> list[np.ndarray]:
    shares = []
    for row in rows:
        of_state = [states.get((row.trajectory, row.sample, int(state)), (1, 0.0))[0] for state in _state(row)]
        shares.append(trajectories[row.trajectory].mask[row.sample][row.decision] / np.array(of_state, np.float32))
    return shares


def rows_divisor(
    trajectories: Sequence[Trajectory],
    rows: Sequence[ScoredRow],
    kind: Denominator,
    trained: Sequence[bool],
    total: Callable[[float], float] = float,
    largest: Callable[[float], float] = float,
) -> float:
    """The divisor of a denominator that counts rows: the number of states that score something, for `row_length` times
    the most trained decisions of a sample. dLLM-RL takes the longest response of all rollouts; here it is the longest
    that the optimizer update learns from.

    Args:
        trained: whether each trajectory counts, or only keeps ranks in step.
        total: sum over ranks; largest: maximum over ranks.
    """
    counted = _states(trajectories, [row for row in rows if trained[row.trajectory]])
    states = max(total(sum(importance for _, importance in counted.values())), 1.0)
    if kind is Denominator.row:
        return states
    lengths = [float(t.mask.sum(-1).max()) for t, used in zip(trajectories, trained, strict=True) if used]
    return states * largest(max(lengths, default=1.0))


def sample_weights(trajectory: Trajectory, kind: Denominator | Weighing) -> np.ndarray:
    """(G,) weight of each sample as a whole: that of its trained decisions together."""
    if not isinstance(kind, Denominator):
        return kind(trajectory.mask)[0].sum(-1)
    if kind in (Denominator.token, Denominator.canvas, *OF_ROWS):
        return trajectory.mask.sum(-1)
    return np.ones(trajectory.group_size)


def divisor(trajectory: Trajectory, kind: Denominator | Weighing) -> float:
    """This trajectory's share of the global divisor; of those that count rows its samples, which says only whether
    there is anything."""
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
