"""Advantages on trees of samples (`rollout.branching`): of a branch against its siblings, and of what no two share.

A branch is what a node's leaves have in common from its fork to the next one. It is trained once, in the node's first
leaf, whose noise keys drew it.
"""

from __future__ import annotations

import numpy as np

from configs.algorithm_options import AdvantageKind
from rl.algorithm.zscore import STANDARD, Unit, zscores
from rollout.branching import Tree


def branch_advantages(
    rewards: np.ndarray, tree: Tree, kind: AdvantageKind, unit: Unit = STANDARD
) -> tuple[np.ndarray, np.ndarray]:
    """The value of a node is the mean reward of its leaves.

    - siblings: value minus the mean value of the node's siblings (d-TreeRPO, arXiv 2512.09675);
    - depth_zscore: (value - m) / unit, with m the mean and the unit of all nodes at the same fork (BranchGRPO, arXiv
      2509.06040).

    Args:
        rewards: (G,) of the leaves, NaN where one could not be scored; it has no part in the values.

    Returns:
        advantage: (G, T) float32, 0 where invalid.
        valid: (G, T) bool: steps behind the first fork, in the first leaf of each node that has something to be
            compared with.
    """
    advantage = np.zeros((tree.leaves, tree.steps), np.float32)
    valid = np.zeros(advantage.shape, bool)
    for factor, segment in zip(tree.factors, tree.segments(), strict=True):
        leaves = tree.shared_by(segment.start)
        value = _means(rewards.reshape(-1, leaves))  # (nodes,)
        gain = _over_siblings(value, factor) if kind is AdvantageKind.siblings else _within_depth(value, unit)
        steps = slice(segment.start, segment.stop)
        valid[::leaves, steps] = ~np.isnan(gain)[:, None]
        advantage[::leaves, steps] = np.nan_to_num(gain)[:, None]
    return advantage, valid


def _means(values: np.ndarray) -> np.ndarray:
    """(n,) means of the rows of (n, m) without their NaN; NaN where a row has nothing else."""
    count = (~np.isnan(values)).sum(-1)
    return np.where(count > 0, np.nansum(values, -1) / np.maximum(count, 1), np.nan)


def _over_siblings(value: np.ndarray, factor: int) -> np.ndarray:
    """(nodes,) NaN where no sibling has a value."""
    family = np.repeat(value.reshape(-1, factor), factor, axis=0)  # a row for each node
    family[np.arange(len(value)), np.arange(len(value)) % factor] = np.nan
    return value - _means(family)


def _within_depth(value: np.ndarray, unit: Unit) -> np.ndarray:
    """(nodes,) NaN where a node is alone."""
    scored = value[~np.isnan(value)]
    if len(scored) < 2:
        return np.full(len(value), np.nan)
    return zscores(value, unit)


def by_leaves(advantage: np.ndarray, tree: Tree) -> np.ndarray:
    """(G, T) advantages times the number of leaves that share each step.

    A branch near the root is one of few, and an estimate of the gradient is a mean over them: in a sum over branches it
    must count for all its leaves. With siblings' values as baselines the sum over a tree is then G times an unbiased
    estimate of the policy gradient (tests/rl/algorithm/test_branches.py).
    """
    return advantage * np.array([tree.shared_by(step) for step in range(tree.steps)], np.float32)


def unshared(advantage: np.ndarray, valid: np.ndarray, tree: Tree) -> tuple[np.ndarray, np.ndarray]:
    """(G, T) of (G,) advantages of whole samples: the steps behind the last fork, which are each sample's own."""
    own = np.arange(tree.steps) >= tree.forks[-1]
    return np.where(own, advantage[:, None], 0).astype(np.float32), valid[:, None] & own


def extremes(
    advantage: np.ndarray, valid: np.ndarray, siblings: int, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Of every `siblings` samples the best if its advantage is at least the threshold, and the worst if it is at most
    minus that (B2-DiffuRL, arXiv 2503.11240); the others are invalid.

    Args:
        advantage, valid: (G,)
    """
    kept = np.zeros_like(valid)
    for family in np.arange(len(advantage)).reshape(-1, siblings):
        family = family[valid[family]]
        if len(family) == 0:
            continue
        best, worst = family[advantage[family].argmax()], family[advantage[family].argmin()]
        kept[best] |= advantage[best] >= threshold
        kept[worst] |= advantage[worst] <= -threshold
    return np.where(kept, advantage, 0).astype(np.float32), kept


def extreme_samples(advantage: np.ndarray, valid: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` best and the `count` worst of a group's valid samples; the others are invalid. Of equal advantages
    the first samples are the lower ones.

    Args:
        advantage, valid: (G,)
    """
    known = valid.nonzero()[0]
    ascending = known[advantage[known].argsort(kind="stable")]
    kept = np.zeros_like(valid)
    kept[ascending[:count]] = kept[ascending[-count:]] = True
    return np.where(kept, advantage, 0).astype(np.float32), kept


def extreme_leaves(advantage: np.ndarray, valid: np.ndarray, tree: Tree, count: int) -> tuple[np.ndarray, np.ndarray]:
    """BranchGRPO's width pruning (arXiv 2509.06040), as in its code: behind the step of the last fork only the `count`
    best and the `count` worst leaves are trained; up to there all branches are.

    Args:
        advantage, valid: (G, T)
    """
    _, kept = extreme_samples(advantage[:, -1], valid[:, -1], count)
    kept = kept[:, None] | (np.arange(tree.steps) <= tree.forks[-1])
    return np.where(kept, advantage, 0).astype(np.float32), valid & kept
