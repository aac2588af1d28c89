"""Standard scores, as all advantages take them."""

from __future__ import annotations

import numpy as np

STD_EPSILON = 1e-4
"""Added to the standard deviation; the value of the public GRPO trainers, small beside any reward scale in use."""


def zscores(values: np.ndarray) -> np.ndarray:
    """(n,) (values - mean) / (population standard deviation + 1e-4); NaN where unknown, which has no part in either."""
    known = values[~np.isnan(values)]
    return (values - known.mean()) / (known.std() + STD_EPSILON)
