"""What a learner tells the driver beside numbers. Without torch, which the driver does without."""

from __future__ import annotations

from dataclasses import dataclass


class LearnerError(RuntimeError):
    """Training cannot go on; what came out of it last is in the newest checkpoint."""


@dataclass(frozen=True)
class Parity:
    gap: float
    """Largest |recorded - recomputed| log-probability times the likelihood's `gap_scale`, over all ranks."""
    by_step: dict[int, float]
    """The same for each step of this rank's samples."""
