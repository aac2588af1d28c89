"""The reward worker: a scorer that keeps count of what went wrong, for use as a Ray actor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

from rewards.options import RewardOptions
from rewards.scoring.scorer import Scorer
from rewards.scoring.scores import ScoreRequest, Scores, TermScores


class RewardWorker:
    """Plain class; the caller wraps it: `ray.remote(RewardWorker).options(num_cpus=1).remote(options)`."""

    def __init__(
        self, options: RewardOptions, printed: Path | None = None, terms: Collection[str] | None = None
    ) -> None:
        """
        Args:
            printed: file for what functions print; None leaves that where this process prints.
            terms: see `Scorer`.
        """
        self._scorer = Scorer(options, printed, terms)
        self._failures: Counter[str] = Counter()

    def ready(self) -> None:
        """Import every reward function. Raises RewardError when one cannot be used; call it before training."""
        self._scorer.start()

    def try_out(self, request: ScoreRequest) -> None:
        """See `Scorer.try_out`."""
        self._scorer.try_out(request)

    def score(self, request: ScoreRequest) -> Scores:
        """See `Scorer.score`."""
        scores = self._scorer.score(request)
        self._failures.update(failure.kind for failure in scores.failures)
        return scores

    def score_terms(self, request: ScoreRequest) -> TermScores:
        """See `Scorer.score_terms`."""
        scores = self._scorer.score_terms(request)
        self._failures.update(failure.kind for failure in scores.failures)
        return scores

    def failure_counts(self) -> dict[str, int]:
        """Failures since this worker started, by kind; a sample counts once for each term that failed on it."""
        return dict(self._failures)

    def close(self) -> None:
        """End the scoring process; it ends by itself when the worker's process does."""
        self._scorer.stop()
