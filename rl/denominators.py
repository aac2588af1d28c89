"""How the sum over decisions becomes a mean. Weights are local to a trajectory; the divisor is global to an update."""

from __future__ import annotations

import numpy as np

from configs.schema import Denominator
from rollout.trajectory import Trajectory


def decision_weights(trajectory: Trajectory, part: np.ndarray, kind: Denominator) -> np.ndarray:
    """(G, D) fp32 weight of each decision, 0 where not trained; the loss is their weighted sum over `divisor`.

    Args:
        part: (G, D) which step of the likelihood a decision belongs to; used by `step` only.
    """
    mask = trajectory.mask
    if kind in (Denominator.token, Denominator.canvas):
        return mask.astype(np.float32)
    if kind is Denominator.sequence:
        return mask / np.maximum(mask.sum(-1, keepdims=True), 1).astype(np.float32)
    return np.stack([_step_weights(m, p) for m, p in zip(mask, part, strict=True)])


def divisor(trajectory: Trajectory, kind: Denominator) -> float:
    """This trajectory's share of the global divisor."""
    if kind is Denominator.token:
        return float(trajectory.mask.sum())
    if kind is Denominator.canvas:
        return float(trajectory.mask.size)
    return float(trajectory.group_size)


def _step_weights(mask: np.ndarray, part: np.ndarray) -> np.ndarray:
    """1 / (decisions of the step) x 1 / (steps of the sample): sums to one for any partition of the trace."""
    weights = np.zeros(len(mask), np.float32)
    steps, step_of, decisions = np.unique(part[mask], return_inverse=True, return_counts=True)
    weights[mask] = 1.0 / (decisions[step_of] * max(len(steps), 1))
    return weights
