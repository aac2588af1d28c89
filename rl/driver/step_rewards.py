"""Finished samples and the estimates of their steps in one call of the reward functions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from rewards.scoring.scores import ScoreRequest, Scores
from rewards.scoring.worker import RewardWorker
from rollout.worker import Estimates


def score_steps(worker: RewardWorker, request: ScoreRequest, estimates: Estimates) -> tuple[Scores, np.ndarray]:
    """
    Args:
        request: the finished samples. They come first, so that estimates on which a function hangs cost none of them.

    Returns:
        Scores of the finished samples alone, as if there were no estimates; and (N, T) float64 rewards of all steps,
        the last of which is the finished sample. NaN behind a sample's last step and where an estimate was not scored.
    """
    scores = worker.score(_joined(request, estimates))
    count = len(request.completions)
    lengths = np.array(estimates.counts)
    steps = np.full((count, int(lengths.max()) + 1), np.nan)
    steps[np.arange(steps.shape[1]) < lengths[:, None]] = scores.total[count:]
    steps[np.arange(count), lengths] = scores.total[:count]
    finished = replace(
        scores,
        total=scores.total[:count],
        terms={name: values[:count] for name, values in scores.terms.items()},
        paid={name: values[:count] for name, values in scores.paid.items()},
        failures=[failure for failure in scores.failures if failure.index < count],
    )
    return finished, steps


def _joined(request: ScoreRequest, estimates: Estimates) -> ScoreRequest:
    """An estimate has its sample's prompt and columns, unless the rollout says otherwise."""

    def with_estimates(finished: list[Any], own: list[Any] | None) -> list[Any]:
        repeated = [value for value, n in zip(finished, estimates.counts, strict=True) for _ in range(n)]
        return [*finished, *(repeated if own is None else own)]

    return replace(
        request,
        groups=None,
        prompts=with_estimates(request.prompts, None),
        completions=with_estimates(request.completions, estimates.outputs),
        completion_ids=request.completion_ids and with_estimates(request.completion_ids, estimates.ids),
        columns={name: with_estimates(c, estimates.columns.get(name)) for name, c in request.columns.items()},
    )
