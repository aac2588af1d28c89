"""What a likelihood scores at once, and what its estimates are sums of: all that the mathematics has to know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

Content = TypeVar("Content")


@dataclass(frozen=True)
class ScoredRow(Generic[Content]):
    """One row and the decisions it scores."""

    content: Content
    trajectory: int
    """Index of its trajectory in the list given to `Likelihood.rows`."""
    sample: int
    decision: np.ndarray
    """(m,) index on the trajectory's decision axis of each log-probability that the row yields."""
    coefficient: np.ndarray
    """(m,) fp32 factor of each log-probability in the estimate: 1 in a replay, the rate's weight in an ELBO."""
    step: np.ndarray
    """(m,) which step of the estimate (part of a trace, draw of a noise level) a decision belongs to, distinct within a
    sample; for means over steps and for ratios of steps."""
    tokens: int
    """Length, for packing micro-batches."""
    importance: float = 1.0
    """Where only some rows of a sample are scored: 1 / probability that this one is. It multiplies losses, so it stays
    outside of ratios."""
    state: np.ndarray | None = None
    """(m,) which state of its sample scores a decision, where several steps are scored under one: the rounds of a
    block-causal trace, counted within each block. None is `step`."""
    emphasis: np.ndarray | None = None
    """(m,) fp32 factor of what each decision counts in the loss, its KL included; None is 1"""


class Estimator(Protocol):
    """How a likelihood's rows add up to its estimate of a sample."""

    @property
    def draws(self) -> int:
        """Independent estimates of each sample that its rows add up to; their sum is divided by it."""
        ...

    @property
    def overlapping(self) -> bool:
        """Whether several rows may score one decision."""
        ...
