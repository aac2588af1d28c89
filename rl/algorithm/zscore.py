"""Standard scores, as all advantages take them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STD_EPSILON = 1e-4
"""Added to the standard deviation; the value of the public GRPO trainers, small beside any reward scale in use."""


@dataclass(frozen=True)
class Unit:
    """What differences of rewards are measured in: their standard deviation, and a little."""

    epsilon: float = STD_EPSILON
    sample_std: bool = False
    """N - 1 in place of N."""

    def of(self, values: np.ndarray) -> float:
        """Of (n,) values; a lone one has no sample standard deviation, and counts as having none."""
        std = values.std(ddof=1) if self.sample_std and len(values) > 1 else values.std()
        return float(std) + self.epsilon


STANDARD = Unit()


def zscores(values: np.ndarray, unit: Unit = STANDARD) -> np.ndarray:
    """(n,) (values - mean) / unit; NaN where unknown, which has no part in either."""
    known = values[~np.isnan(values)]
    return (values - known.mean()) / unit.of(known)
