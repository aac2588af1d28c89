"""How well scores agree with people's labels: rank correlations and the accuracy on pairs, with 95 % intervals.

Rows of one prompt resemble each other, so every interval is about prompts, not rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau, rankdata

from rl.run.statistics import Z95

RESAMPLES = 1000
CHUNK = 512
"""Rows that are compared with all others, or with all of their prompt, at once: memory is this times their number."""


@dataclass(frozen=True)
class Agreement:
    """Of one score with the labels. An interval is None where nothing says how prompts differ."""

    rows: int
    """With a score and a label."""
    spearman: float
    spearman_interval: tuple[float, float] | None
    kendall: float
    """Tau-b, which knows equal values."""
    kendall_interval: tuple[float, float] | None
    pairs: int
    """Of rows with different labels."""
    accuracy: float
    """Share of them that the score orders as the label does; equal scores count half."""
    accuracy_interval: tuple[float, float] | None
    tied: int
    """Pairs with equal scores."""
    within_prompts: bool
    """Pairs are of one prompt's rows; False where no prompt has two with different labels: then of all rows."""


def agreement(scores: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int = 0) -> Agreement | None:
    """None where fewer than three rows, or two different labels or scores, are known.

    Args:
        scores: (N,), NaN where unscored; labels (N,), NaN where unlabelled; groups (N,) number of each row's prompt.
        seed: of the generator that draws prompts.
    """
    known = ~np.isnan(scores) & ~np.isnan(labels)
    scores, labels, groups = scores[known], labels[known], groups[known]
    if len(scores) < 3 or np.ptp(scores) == 0 or np.ptp(labels) == 0:
        return None
    _, groups, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    within = bool((sizes > 1).any()) and bool(_pairs(scores, labels, groups, within=True)[1].any())
    right, pairs, tied = _pairs(scores, labels, groups, within)
    accuracy, interval = _ratio(right, pairs, groups, doubled=not within)

    def resampled(statistic: Callable[[np.ndarray, np.ndarray], float]) -> tuple[float, float] | None:
        return _bootstrap(statistic, scores, labels, groups, np.random.default_rng(seed))

    def spearman(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])

    def kendall(a: np.ndarray, b: np.ndarray) -> float:
        return float(kendalltau(a, b).statistic)

    return Agreement(
        rows=len(scores),
        spearman=spearman(scores, labels),
        spearman_interval=resampled(spearman),
        kendall=kendall(scores, labels),
        kendall_interval=resampled(kendall),
        pairs=int(pairs.sum()) // 2,
        accuracy=accuracy,
        accuracy_interval=interval,
        tied=int(tied.sum()) // 2,
        within_prompts=within,
    )


def _members(groups: np.ndarray) -> list[np.ndarray]:
    """Places of each group's rows."""
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)


def _pairs(
    scores: np.ndarray, labels: np.ndarray, groups: np.ndarray, within: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N,) of each row: pairs that the score orders as the label does, pairs, and pairs with equal scores; with all
    rows, or with those of its prompt. Every pair is counted at both of its rows."""
    right, pairs, tied = np.zeros(len(scores)), np.zeros(len(scores)), np.zeros(len(scores))
    for members in _members(groups) if within else [np.arange(len(scores))]:
        for first in range(0, len(members), CHUNK):
            rows = members[first : first + CHUNK]
            of_labels = np.sign(labels[rows, None] - labels[members])
            of_scores = np.sign(scores[rows, None] - scores[members])
            counted = of_labels != 0
            pairs[rows], tied[rows] = counted.sum(1), (counted & (of_scores == 0)).sum(1)
            right[rows] = (counted & (of_scores == of_labels)).sum(1) + 0.5 * tied[rows]
    return right, pairs, tied


def _ratio(
    right: np.ndarray, pairs: np.ndarray, clusters: np.ndarray, doubled: bool
) -> tuple[float, tuple[float, float] | None]:
    """The share of right pairs, and its interval by the linearised variance of a ratio over clusters. Where every pair
    is right, or none, that variance is 0 however few they are: then the interval is Clopper and Pearson's of as many
    clusters.

    Args:
        doubled: every pair is shared by two clusters, so a cluster moves the share twice as much (a U-statistic).
    """
    value = float(right.sum() / pairs.sum())
    residuals = np.bincount(clusters, right - value * pairs)[np.bincount(clusters, pairs) > 0]
    count = len(residuals)
    if count < 2:
        return value, None
    if value in (0.0, 1.0):
        exact = 0.025 ** (1 / count)
        return value, (exact, 1.0) if value else (0.0, 1 - exact)
    error = (2 if doubled else 1) * float(np.sqrt(count / (count - 1) * (residuals**2).sum())) / float(pairs.sum())
    return value, (max(0.0, value - Z95 * error), min(1.0, value + Z95 * error))


def _bootstrap(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    scores: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    generator: np.random.Generator,
) -> tuple[float, float] | None:
    """Percentiles over samples of prompts, drawn with replacement; None where all of these say the same."""
    members = _members(groups)
    if len(members) < 3:
        return None
    found = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([members[i] for i in generator.integers(len(members), size=len(members))])
        if np.ptp(scores[rows]) > 0 and np.ptp(labels[rows]) > 0:
            found.append(statistic(scores[rows], labels[rows]))
    if not found:
        return None
    low, high = np.quantile(found, [0.025, 0.975])
    if np.isclose(low, high):  # of scores in the labels' own order: no resample can say how sure that is
        return None
    return float(low), float(high)
