"""How much better a sample is than others: those of its group (one prompt's G samples), of its update, or of its prompt
in earlier updates."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from configs.algorithm_options import AdvantageKind, AlgorithmOptions, TermScale
from rl.algorithm.branches import (
    branch_advantages,
    by_leaves,
    extreme_leaves,
    extreme_samples,
    extremes,
    unshared,
)
from rl.algorithm.credit import step_advantages
from rl.algorithm.custom import custom_advantages
from rl.algorithm.zscore import STANDARD, Unit, zscores
from rollout.branching import Tree

EQUAL_TOLERANCE = 1e-6
"""Rewards closer than this, relative to the largest, are equal: sums of weighted terms round differently."""


OFFLINE_ADVANTAGES = {AdvantageKind.constant: (1.0,), AdvantageKind.preference: (1.0, -1.0)}
"""Of answers in the data: a demonstration; the chosen and the rejected answer of a pair. Times an answer's
log-likelihood they sum to what DPO (arXiv 2305.18290, eq. 7) puts into its sigmoid, up to the reference."""


Advantages = tuple[np.ndarray, np.ndarray]
"""(G,) float32, 0 where invalid; (G,) bool, valid. Of steps and on a tree (G, T): of each of T denoising steps."""


class AdvantageEstimator:
    """Advantages of all groups of an update; remembers rewards between updates where the kind asks for it."""

    def __init__(self, options: AlgorithmOptions) -> None:
        self.options = options
        self.unit = Unit(options.advantage_epsilon, options.sample_std)
        self.history: dict[str, deque[float]] = {}
        """Latest rewards of each prompt, oldest first (advantage=running)."""

    def __call__(
        self, rewards: Sequence[np.ndarray], prompts: Sequence[str], tree: Tree | None = None
    ) -> list[Advantages]:
        """
        Args:
            rewards: (G,) of each group, NaN for a sample that could not be scored; for advantage=per_step (G, T), see
                `rl.algorithm.credit`.
            prompts: key of each group's prompt; groups of one prompt share their history.
            tree: how the samples of a group branch; None if they share nothing.
        """
        kind, limit = self.options.advantage, self.options.advantage_clip
        if kind is AdvantageKind.per_step:
            found = [step_advantages(group, self.options.selected_steps, self.unit) for group in rewards]
        elif kind is AdvantageKind.custom:
            found = [custom_advantages(_checked(group), self.options) for group in rewards]
        elif kind.over_the_update:
            found = self._over_the_update([_checked(group) for group in rewards], prompts)
        elif kind.of_branches:
            assert tree is not None  # checked with the configuration
            found = [branch_advantages(_checked(group), tree, kind, self.unit) for group in rewards]
        else:
            found = [advantages(group, kind, self.unit, self.options.positive_only) for group in rewards]
        if limit is not None:
            found = [(advantage.clip(-limit, limit), valid) for advantage, valid in found]
        if (threshold := self.options.extremes) is not None:
            found = [
                extremes(*group, len(group[0]) if tree is None else tree.factors[-1], threshold) for group in found
            ]
        if (count := self.options.extreme_samples) is not None:
            found = [
                extreme_leaves(*group, tree, count) if tree and kind.of_branches else extreme_samples(*group, count)
                for group in found
            ]
        if tree is None:
            return found
        if not kind.of_branches:
            return [unshared(*group, tree) for group in found]
        return [(by_leaves(a, tree), v) for a, v in found] if self.options.leaf_weights else found

    def teaches(self, rewards: np.ndarray, advantage: np.ndarray | None = None) -> bool:
        """Whether a group can change the policy. Compared with others than its own, or with a value model's prediction,
        equal rewards can, and so can equal final rewards of steps that differ.

        Args:
            advantage: as returned by the call; None where only the group's own rewards shall decide.
        """
        if self.options.advantage is AdvantageKind.raw:
            return True
        by_advantage = (AdvantageKind.batch, AdvantageKind.running, AdvantageKind.per_step, AdvantageKind.custom)
        if advantage is not None and self.options.advantage in by_advantage:
            return bool(np.abs(advantage).max() > EQUAL_TOLERANCE)
        return has_signal(rewards)

    def admits(self, rewards: np.ndarray, solved: np.ndarray | None, advantage: np.ndarray | None = None) -> bool:
        """Whether the options let a group into the loss.

        Args:
            solved: (G,) 1, 0 or NaN; None where nobody knows, which is for options without `solved_band`.
            advantage: as returned by the call; None leaves out what depends on other groups.
        """
        options = self.options
        if options.solved_band is not None:
            if solved is None:
                raise ValueError("algorithm.solved_band chooses groups by their solved samples: say which are solved")
            if not in_band(solved, options.solved_band):
                return False
        if options.least_difference is not None and not differs(rewards, options.least_difference):
            return False
        return not options.filter_zero_variance or self.teaches(rewards, advantage)

    def _over_the_update(self, rewards: Sequence[np.ndarray], prompts: Sequence[str]) -> list[Advantages]:
        """With m and s the mean and standard deviation over all scored samples of the update, e `advantage_epsilon`:

        - batch: (r - m) / (s + e);
        - global_std: (r - group mean) / (s + e), Flow-GRPO's default (arXiv 2505.05470): a group whose rewards
          hardly differ is not blown up to unit spread;
        - running: m and s of the prompt's latest `buffer` rewards, this update's included (DDPO, arXiv 2305.13301,
          appendix D); of the update while there are fewer than `minimum`.
        """
        scored = np.concatenate([group[~np.isnan(group)] for group in rewards])
        mean, std = (float(scored.mean()), self.unit.of(scored)) if len(scored) else (0.0, self.unit.epsilon)
        if self.options.advantage is AdvantageKind.running:
            self._remember(rewards, prompts)
        result: list[Advantages] = []
        for group, prompt in zip(rewards, prompts, strict=True):
            valid = ~np.isnan(group)
            centre, unit = mean, std
            if self.options.advantage is AdvantageKind.global_std:
                valid &= valid.sum() > 1
                centre = float(group[valid].mean()) if valid.any() else 0.0
            elif self.options.advantage is AdvantageKind.running:
                latest = self.history.get(prompt, ())
                if len(latest) >= self.options.running.minimum:
                    centre, unit = float(np.mean(latest)), self.unit.of(np.array(latest))
            advantage = np.where(valid, (group - centre) / unit, 0.0)
            result.append((advantage.astype(np.float32), valid))
        return result

    def _remember(self, rewards: Sequence[np.ndarray], prompts: Sequence[str]) -> None:
        for group, prompt in zip(rewards, prompts, strict=True):
            latest = self.history.setdefault(prompt, deque(maxlen=self.options.running.buffer))
            latest.extend(group[~np.isnan(group)].tolist())

    def state(self) -> dict[str, Any]:
        """As JSON, for a checkpoint."""
        return {prompt: list(latest) for prompt, latest in self.history.items()}

    def load(self, state: Mapping[str, Any]) -> None:
        self.history = {prompt: deque(latest, self.options.running.buffer) for prompt, latest in state.items()}


def advantages(
    rewards: np.ndarray, kind: AdvantageKind, unit: Unit = STANDARD, positive_only: bool = False
) -> Advantages:
    """Advantages of one group by itself.

    With r the scored rewards, m their mean and n their number:

    - zscore: (r - m) / (std + epsilon). GRPO (arXiv 2402.03300, section 4.1.2) says only "standard deviation"; by
      default it is the population's, as TraceRL's (arXiv 2509.06949); DanceGRPO's is the sample's (`sample_std`).
    - centred: r - m (Dr. GRPO, arXiv 2503.20783).
    - leave_one_out: r minus the mean of the other n - 1 (RLOO, arXiv 2402.14740), which is n / (n - 1) (r - m).
    - softmax: n (w+ - w-), with w+ and w- the softmax of r - m and of m - r (wd1, arXiv 2507.08838);
      with `positive_only` n w+.
    - raw: r.
    - best_worst: +1 for the highest reward, -1 for the lowest, the first of equals; only these two are valid.

    Args:
        rewards: (G,) with NaN for a sample that could not be scored. Such a sample has no part in m, n and std.
        unit: of zscore.

    Returns:
        advantage: (G,) float32, 0 where invalid.
        valid: (G,) bool. A lone scored sample has nothing to be compared with, so it is not, but for `raw`.
    """
    if kind.offline:
        raise ValueError(f"advantage={kind.name} belongs to answers in the data, not to rewards (OFFLINE_ADVANTAGES)")
    if kind.of_branches:
        raise ValueError(f"advantage={kind.name} belongs to trees of samples (rl.algorithm.branches)")
    if kind is AdvantageKind.custom:
        raise ValueError("advantage=custom is a function of the user's (rl.algorithm.custom)")
    if kind is AdvantageKind.none:
        raise ValueError("advantage=none compares no samples: it is for reward gradients")
    rewards = _checked(rewards)
    valid = ~np.isnan(rewards)
    result = np.zeros(rewards.shape, dtype=np.float32)
    scored = rewards[valid]
    count = len(scored)
    if kind is AdvantageKind.raw:
        return np.where(valid, rewards, 0.0).astype(np.float32), valid
    if count < 2:
        return result, np.zeros_like(valid)
    centred = scored - scored.mean()
    if kind is AdvantageKind.zscore:
        centred = zscores(scored, unit)
    elif kind is AdvantageKind.leave_one_out:
        centred *= count / (count - 1)
    elif kind is AdvantageKind.softmax:
        centred = count * (_softmax(centred) - (0.0 if positive_only else _softmax(-centred)))
    elif kind is AdvantageKind.best_worst:
        if has_signal(rewards):
            result[np.nanargmax(rewards)], result[np.nanargmin(rewards)] = 1.0, -1.0
        return result, result != 0
    result[valid] = centred
    return result, valid


def _softmax(values: np.ndarray) -> np.ndarray:
    exponentials = np.exp(values - values.max())
    return exponentials / exponentials.sum()


def combined(
    terms: Mapping[str, np.ndarray], weights: Mapping[str, float], scale: TermScale = TermScale.zscore
) -> np.ndarray:
    """(G,) sum of a group's reward terms, each made comparable within the group before its weight, so that none drowns
    out another (GDPO, arXiv 2601.05242, section 3; LightningRL, MixGRPO). One that is the same for all adds nothing
    that distinguishes them.

    Args:
        terms: (G,) of each, NaN where it does not apply to a sample or could not be scored; there it adds 0.
        weights: of the terms; those of weight 0 are left out.
    """
    total = np.zeros(len(next(iter(terms.values()))))
    for name, values in terms.items():
        scored = values[~np.isnan(values)]
        if weights[name] != 0 and len(scored) > 1:
            found = zscores(values) if scale is TermScale.zscore else ranks(values)
            total += weights[name] * np.nan_to_num(found)
    return total


def ranks(values: np.ndarray) -> np.ndarray:
    """(n,) ranks of the known among (n,) values, from -0.5 for the lowest to 0.5 for the highest, equals the mean of
    theirs; NaN where unknown. Centred, so that a sample to which a term does not apply gets the middle."""
    known = ~np.isnan(values)
    _, which, counts = np.unique(values[known], return_inverse=True, return_counts=True)
    places = counts.cumsum() - (counts + 1) / 2  # from 0 on; the mean of those that equals share
    found = np.full(values.shape, np.nan)
    found[known] = places[which] / (known.sum() - 1) - 0.5
    return found


def normalised(
    rewards: np.ndarray,
    terms: Mapping[str, np.ndarray],
    weights: Mapping[str, float],
    scale: TermScale = TermScale.zscore,
) -> np.ndarray:
    """(groups, samples) sums of each group's terms, scaled (`combined`); NaN where the sample was not scored. What some
    terms say of such a sample is compared with nothing.

    Args:
        rewards: (groups, samples), NaN where unscored; terms the same for each term.
    """
    unscored = np.isnan(rewards)
    known = {name: np.where(unscored, np.nan, values) for name, values in terms.items()}
    groups = range(len(rewards))
    sums = [combined({name: values[group] for name, values in known.items()}, weights, scale) for group in groups]
    return np.where(unscored, np.nan, np.stack(sums))


def in_band(solved: np.ndarray, band: tuple[float, float]) -> bool:
    """Whether the solved fraction of a group's scored samples lies within `band`, its ends included.

    Args:
        solved: (G,) 1 solved, 0 not, NaN unscored.
    """
    scored = solved[~np.isnan(solved)]
    return len(scored) > 0 and band[0] <= float(scored.mean()) <= band[1]


def differs(rewards: np.ndarray, least: float) -> bool:
    """Whether a group's scored samples differ by more than `least`: the highest from the lowest. SPO's threshold is of
    p_best - p_worst, with p the softmax of these two scores, which is tanh of half their difference."""
    scored = rewards[~np.isnan(rewards)]
    return len(scored) > 1 and float(np.ptp(scored)) > least


def has_signal(rewards: np.ndarray) -> bool:
    """Whether a group can teach anything relative: at least two scored samples whose rewards are not all equal.

    Args:
        rewards: (G,) with NaN for a sample that could not be scored.
    """
    rewards = _checked(rewards)
    scored = rewards[~np.isnan(rewards)]
    return differs(scored, EQUAL_TOLERANCE * float(np.abs(scored).max(initial=0.0)))


def _checked(rewards: np.ndarray) -> np.ndarray:
    rewards = np.asarray(rewards, dtype=np.float64)
    if rewards.ndim != 1:
        raise ValueError(f"advantages are taken over one group, a vector; got rewards of shape {rewards.shape}")
    if np.isinf(rewards).any():
        raise ValueError(f"a reward is infinite: {rewards.tolist()}; a reward function must return a finite number")
    return rewards
