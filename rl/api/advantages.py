"""How much better each sample is than others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from configs.algorithm_options import AdvantageKind, AlgorithmOptions, TermScale
from configs.errors import UserError
from rl.api.configuration import AnyConfig, algorithm_options
from rl.api.scoring import Rewards


def advantages(
    rewards: Rewards | np.ndarray | Sequence[Sequence[float]],
    options: AnyConfig | AlgorithmOptions | Mapping[str, Any] | str | None = None,
    *,
    prompts: Sequence[str] | None = None,
    solved: np.ndarray | None = None,
) -> np.ndarray:
    """Advantages of some groups, those of one update, as the training loop takes them.

    Args:
        rewards: (groups, G), NaN for a sample that could not be scored; with `advantage=per_step` (groups, G, T), the
            rewards of each step's estimate.
        options: of the algorithm: a configuration, the name of an algorithm file (`"dipo"`), or options to change
            (`{"advantage": "leave_one_out"}`); None is the z-score within each group.
        prompts: key of each group's prompt, for `advantage=running`; None are all different.
        solved: (groups, G) of 1, 0 and NaN, for `solved_band`; `Rewards` bring their own.

    Returns:
        The shape of the rewards, float32. NaN is left out of the loss: a sample that was not scored, or a group that
        the options leave out, such as one whose rewards are all equal (`filter_zero_variance`).

    Raises:
        UserError: this kind of advantage is not one of rewards.
    """
    from rl.algorithm.advantages import AdvantageEstimator, normalised

    chosen = algorithm_options(options)
    kind = chosen.advantage
    if kind.offline or kind.of_branches or kind is AdvantageKind.none:
        what = "trees of samples, which only runs make" if kind.of_branches else "training without rewards of samples"
        raise UserError(f"advantage={kind.name} is for {what}: choose another, such as {{'advantage': 'zscore'}}")
    if isinstance(rewards, Rewards) and solved is None:
        solved = rewards.solved
    values = of_samples = np.asarray(rewards, np.float64)
    if chosen.normalise_terms is not TermScale.none:
        if not isinstance(rewards, Rewards):
            raise UserError("normalise_terms compares the terms of a reward: give what rl.score returns")
        values = normalised(rewards.total, rewards.paid, rewards.weights, chosen.normalise_terms)
    per_step = kind is AdvantageKind.per_step
    if values.ndim != 2 + per_step:
        axes = "(groups, G, T)" if per_step else "(groups, G)"
        raise UserError(f"rewards have shape {values.shape}, and advantage={kind.name} wants {axes}")
    keys = [f"group {index}" for index in range(len(values))] if prompts is None else list(prompts)
    estimator = AdvantageEstimator(chosen)
    found = np.full(values.shape, np.nan, np.float32)
    outcomes = [None] * len(values) if solved is None else list(solved)
    for index, (advantage, valid) in enumerate(estimator(list(values), keys)):
        final = _final(of_samples[index]) if per_step else of_samples[index]
        if valid.any() and estimator.admits(final, outcomes[index], advantage):
            found[index] = np.where(valid, advantage, np.nan)
    return found


def _final(steps: np.ndarray) -> np.ndarray:
    """(G,) reward of each sample's last step, which is the finished sample; NaN if none is known."""
    known = ~np.isnan(steps)
    last = steps.shape[1] - 1 - known[:, ::-1].argmax(1)
    return np.where(known.any(1), steps[np.arange(len(steps)), last], np.nan)
