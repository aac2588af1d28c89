"""How much better a sample is than the others of its group (one prompt's G samples)."""

from __future__ import annotations

import numpy as np

from configs.schema import AdvantageKind

STD_EPSILON = 1e-4
"""Added to the standard deviation; the value of the public GRPO trainers, small beside any reward scale in use."""
EQUAL_TOLERANCE = 1e-6
"""Rewards closer than this, relative to the largest, are equal: sums of weighted terms round differently."""


def advantages(rewards: np.ndarray, kind: AdvantageKind) -> tuple[np.ndarray, np.ndarray]:
    """Advantages of one group.

    With r the scored rewards, m their mean and n their number:

    - zscore: (r - m) / (population std + 1e-4). GRPO (arXiv 2402.03300, section 4.1.2) says only "standard deviation";
      we take the population's, as TraceRL (arXiv 2509.06949) does.
    - centred: r - m (Dr. GRPO, arXiv 2503.20783).
    - leave_one_out: r minus the mean of the other n - 1 (RLOO, arXiv 2402.14740), which is n / (n - 1) (r - m).
    - constant: 1.

    Args:
        rewards: (G,) with NaN for a sample that could not be scored. Such a sample has no part in m, n and std.

    Returns:
        advantage: (G,) float32, 0 where invalid.
        valid: (G,) bool. A lone scored sample has nothing to be compared with, so it is valid for `constant` only.
    """
    rewards = _checked(rewards)
    valid = ~np.isnan(rewards)
    result = np.zeros(rewards.shape, dtype=np.float32)
    if kind is AdvantageKind.constant:
        result[valid] = 1.0
        return result, valid
    scored = rewards[valid]
    count = len(scored)
    if count < 2:
        return result, np.zeros_like(valid)
    centred = scored - scored.mean()
    if kind is AdvantageKind.zscore:
        centred /= scored.std() + STD_EPSILON
    elif kind is AdvantageKind.leave_one_out:
        centred *= count / (count - 1)
    result[valid] = centred
    return result, valid


def has_signal(rewards: np.ndarray) -> bool:
    """Whether a group can teach anything relative: at least two scored samples whose rewards are not all equal.

    Args:
        rewards: (G,) with NaN for a sample that could not be scored.
    """
    rewards = _checked(rewards)
    scored = rewards[~np.isnan(rewards)]
    if len(scored) < 2:
        return False
    return bool(np.ptp(scored) > EQUAL_TOLERANCE * np.abs(scored).max())


def _checked(rewards: np.ndarray) -> np.ndarray:
    rewards = np.asarray(rewards, dtype=np.float64)
    if rewards.ndim != 1:
        raise ValueError(f"advantages are taken over one group, a vector; got rewards of shape {rewards.shape}")
    if np.isinf(rewards).any():
        raise ValueError(f"a reward is infinite: {rewards.tolist()}; a reward function must return a finite number")
    return rewards
