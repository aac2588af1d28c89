"""Generalised advantage estimation over the denoising steps of a sample. Pure functions."""

from __future__ import annotations

import numpy as np


def step_advantages(
    reward: np.ndarray, value: np.ndarray, step: np.ndarray, discount: float, gae_lambda: float
) -> tuple[np.ndarray, np.ndarray]:
    """Advantages and returns of one sample's decisions (GAE, arXiv 1506.02438, eq. 16, over the steps of a trace as in
    TraceRL, arXiv 2509.06949).

    With r*_t and V*_t the means of reward and value over the decisions of step t, and zero behind the last step:

        delta_t = r*_t - V*_t + discount V*_t+1        A*_t = delta_t + discount lambda A*_t+1
        R*_t = r*_t + discount R*_t+1

    and of decision k of step t:

        A_k = (r_k - V_k) + discount V*_t+1 + discount lambda A*_t+1        R_k = r_k + discount R*_t+1

    so that A*_t and R*_t are the means of A_k and R_k. With discount = lambda = 1 and one reward at the end, A_k is
    that reward minus V_k.

    Args:
        reward: (n,) what each decision was given.
        value: (n,) of the state before each decision.
        step: (n,) integers; a lower one came earlier.

    Returns:
        (n,) fp64 advantages, and (n,) fp64 returns, which are the targets of the value.
    """
    reward, value = reward.astype(np.float64), value.astype(np.float64)
    _, place, size = np.unique(step, return_inverse=True, return_counts=True)
    mean_reward, mean_value = (np.bincount(place, numbers) / size for numbers in (reward, value))
    steps = len(size)
    mean_value = np.append(mean_value, 0.0)
    mean_advantage, mean_return = np.zeros(steps + 1), np.zeros(steps + 1)
    for t in reversed(range(steps)):
        delta = mean_reward[t] - mean_value[t] + discount * mean_value[t + 1]
        mean_advantage[t] = delta + discount * gae_lambda * mean_advantage[t + 1]
        mean_return[t] = mean_reward[t] + discount * mean_return[t + 1]
    ahead = discount * (mean_value[1:] + gae_lambda * mean_advantage[1:])  # (steps,)
    return (reward - value) + ahead[place], reward + discount * mean_return[1:][place]


def at_the_end(outcome: np.ndarray, step: np.ndarray) -> np.ndarray:
    """(n,) rewards of decisions whose sample is worth `outcome` (n,): it is given for the last step, 0 before."""
    return np.where(step == step.max(), outcome, 0.0)
