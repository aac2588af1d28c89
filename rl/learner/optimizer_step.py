"""One optimizer update, whose numbers must be finite."""

from __future__ import annotations

import math

from configs.algorithm_options import AlgorithmOptions, OptimizerOptions, Schedule
from rl.learner.engine import Engine, GradientError
from rl.learner.report import LearnerError

NOT_FINITE = "Lower the learning rate or rollout.max_staleness and run again: it goes on from the newest checkpoint"


def optimizer_step(engine: Engine, rate: float, update: int) -> float:
    """Takes the accumulated gradient as far as `rate` says. Returns its norm before clipping.

    Raises:
        LearnerError: it is not finite.
    """
    try:
        norm = engine.update(rate)
    except GradientError as error:
        raise LearnerError(f"update {update}: {error}. {NOT_FINITE}") from error
    if not math.isfinite(norm):
        raise LearnerError(f"update {update}: the gradient norm is {norm}. {NOT_FINITE}")
    return norm


def learning_rate(options: OptimizerOptions, update: int, total_updates: int) -> float:
    """A pure function of the update, so that a resume needs no scheduler state."""
    warmup = min(1.0, (update + 1) / (options.warmup_updates + 1))
    progress = update / max(total_updates, 1)
    if options.schedule is Schedule.linear:
        return options.learning_rate * warmup * (1 - progress)
    if options.schedule is Schedule.cosine:
        return options.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * progress))
    return options.learning_rate * warmup


def anchor_weight(options: AlgorithmOptions, update: int, total_updates: int) -> float:
    """Of the supervised loss beside the objective; with `anchor_growth` it rises as d-TreeRPO's self-distillation does
    (arXiv 2512.09675), from 0 in the first update."""
    if options.anchor_growth is None:
        return options.anchor
    progress = update / max(total_updates, 1)
    return options.anchor * math.expm1(options.anchor_growth * progress) / math.expm1(options.anchor_growth)
