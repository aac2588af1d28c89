"""Parts of an algorithm that users bring along."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional


@dataclass
class CustomOptions:
    """Dotted paths of functions of yours; each is read where the option of its name is `custom`."""

    advantage: Optional[str] = None  # noqa: UP045
    """(G,) rewards of a group, NaN where unscored -> (G,) advantages, NaN where a sample is left out."""
    objective: Optional[str] = None  # noqa: UP045
    """(U,) log-ratios, (U,) advantages, these options -> (U,) losses; U are decisions, steps or samples, by `ratio`."""
    denominator: Optional[str] = None  # noqa: UP045
    """(G, D) mask of a group's trained decisions -> (G, D) weights, and the group's share of the divisor."""
