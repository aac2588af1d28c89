"""Advantages of single denoising steps, from the rewards of what each step took the finished sample to be (MDPO,
arXiv 2508.13148)."""

from __future__ import annotations

import numpy as np

from rl.algorithm.zscore import STANDARD, Unit


def step_scores(rewards: np.ndarray) -> np.ndarray:
    """What each step is worth: the reward that it gained, and the mean of the rewards that came after it,

        S_t = (r_t - r_(t-1)) + mean of r_j over j > t.

    The first step has r_1 instead of a difference, the last one r_T instead of a mean.

    Args:
        rewards: (G, T) of each step's estimate of the finished sample; NaN behind a sample's last step, and where an
            estimate could not be scored.

    Returns:
        (G, T), NaN where the reward of a step or of the one before it is missing. Missing rewards are left out of the
        means; where no later one is known, the step's own stands for it.
    """
    before = np.concatenate([np.zeros_like(rewards[:, :1]), rewards[:, :-1]], axis=1)
    known = ~np.isnan(rewards)
    sums, counts = (_of_later(values) for values in (np.where(known, rewards, 0.0), known.astype(np.float64)))
    later = np.where(counts > 0, sums / counts.clip(min=1), rewards)
    return (rewards - before) + later


def step_advantages(
    rewards: np.ndarray, selected: int | None = None, unit: Unit = STANDARD
) -> tuple[np.ndarray, np.ndarray]:
    """A_it = (S_it - mean_i S_it) / (std_i S_it + epsilon), step by step, over those of a group that have the step.

    Args:
        rewards: (G, T), see `step_scores`.
        selected: only the steps with this many largest sums of |A| over the group are trained; None trains all. It is
            one choice for the whole group: steps that its samples chose by themselves would be compared with nobody.

    Returns:
        (G, T) fp32, 0 where invalid; (G, T) bool, valid. A step that one sample alone has teaches nothing.
    """
    rewards = np.asarray(rewards, np.float64)
    if rewards.ndim != 2:
        raise ValueError(f"steps are compared over one group, (samples, steps); got shape {rewards.shape}")
    if np.isinf(rewards).any():
        raise ValueError("the reward of an estimate is infinite; a reward function must return a finite number")
    scores = step_scores(rewards)
    valid = ~np.isnan(scores)
    valid &= valid.sum(0) > 1
    count = valid.sum(0).clip(min=1)
    mean = np.where(valid, scores, 0.0).sum(0) / count
    centred = np.where(valid, scores - mean, 0.0)
    std = np.sqrt((centred**2).sum(0) / (count - unit.sample_std).clip(min=1))
    advantage = (centred / (std + unit.epsilon)).astype(np.float32)
    if selected is not None:
        valid &= _largest(np.abs(advantage).sum(0), selected)
        advantage = np.where(valid, advantage, np.float32(0))
    return advantage, valid


def _of_later(values: np.ndarray) -> np.ndarray:
    """(G, T) sum over all later steps."""
    return values[:, ::-1].cumsum(1)[:, ::-1] - values


def _largest(weight: np.ndarray, count: int) -> np.ndarray:
    """(T,) bool: the `count` largest, of equal ones the first."""
    chosen = np.zeros(len(weight), bool)
    chosen[np.argsort(-weight, kind="stable")[:count]] = True
    return chosen
