"""Which samples count as solved."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rewards.options import RewardOptions

SOLVED_TOLERANCE = 1e-9
"""A sum of weighted terms may miss `solved_at` by a rounding error."""


def solved_of(rewards: np.ndarray, terms: Mapping[str, np.ndarray], options: RewardOptions) -> np.ndarray | None:
    """(groups, samples) 1 solved, 0 not, NaN unscored; None where `solved_at` is null.

    Args:
        rewards: (groups, samples) weighted sums; terms the same for each term, unweighted.
    """
    if options.solved_at is None:
        return None
    values = rewards if options.solved_by is None else terms[options.solved_by]
    unscored = np.isnan(rewards) | np.isnan(values)
    return np.where(unscored, np.nan, values >= options.solved_at - SOLVED_TOLERANCE)
