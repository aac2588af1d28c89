"""Whether training raised the reward: an effect and its standard error, before and after on the same noise.

The mean rewards of an update's own samples do not tell: of 16 samples they are off by a quarter of a sample's standard
deviation, and the first two updates have already learned. So a policy is trained from several seeds of the rollouts and
asked for samples under the noise of one evaluation, which no training has seen, with the weights before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.rl.support.image_learning import Training

SEEDS = (0, 1)
EVALUATED = 128
"""Samples: what is left of their noise is a third of `DRIFT`."""
ERRORS = 4.0
"""Standard errors that an effect must have. What learns nothing gets there once in 30 000 times."""
DRIFT = 0.3
"""Standard deviation over seeds of the effect of updates without a signal, in standard deviations of a sample: Adam
makes a whole step of any gradient. Two seeds cannot tell it, so it is a constant, measured by `permute_rewards` as
tests/rl/recipes/test_text_recipes.py trains: over 18 runs of three recipes it was 0.30 with the noise of the samples in
it, around -0.06. Of images whole pictures change their colour, so it depends on the recipe and is written beside it."""


@dataclass(frozen=True)
class Effect:
    changes: np.ndarray
    """(seeds, samples) of each sample's reward."""
    spread: float
    """Standard deviation of the samples' rewards before."""
    drift: float
    """See `DRIFT`."""

    @property
    def size(self) -> float:
        """In standard deviations of a sample."""
        return float(self.changes.mean() / self.spread)

    @property
    def error(self) -> float:
        """Of `size`: the samples, which all seeds share, and the drift of each seed."""
        seeds, samples = self.changes.shape
        sampled = float(self.changes.mean(0).std(ddof=1) / samples**0.5 / self.spread)
        return float(np.hypot(sampled, self.drift / seeds**0.5))

    @property
    def in_errors(self) -> float:
        return self.size / self.error

    def __str__(self) -> str:
        of_seeds = ", ".join(f"{mean / self.spread:+.2f}" for mean in self.changes.mean(1))
        return f"{self.size:+.2f} +- {self.error:.2f} standard deviations of a sample ({of_seeds})"


def effect(before: np.ndarray, after: Sequence[np.ndarray], drift: float = DRIFT) -> Effect:
    """Of (samples,) rewards before, and after the training of each seed, under the same noise."""
    return Effect(np.stack(after) - before, float(before.std()), drift)


def effect_of_training(
    begin: Callable[[int], Training],
    train: Callable[[Training], object],
    seeds: Sequence[int] = SEEDS,
    drift: float = DRIFT,
    samples: int = EVALUATED,
) -> Effect:
    """
    Args:
        begin: makes the training of a seed of the rollouts.
        train: what is called with each of them.
    """
    before, after = None, []
    for seed in seeds:
        training = begin(seed)
        if before is None:  # all seeds begin with the same weights
            before = training.evaluate(samples)
        train(training)
        after.append(training.evaluate(samples))
    assert before is not None
    return effect(before, after, drift)


def permute_rewards(training: Training) -> None:
    """The control: every advantage goes to some sample of its group, so that nothing can be learned."""
    estimate, generator = training.advantages, np.random.default_rng(training.seed)

    def permuted(rewards: list[np.ndarray], *others: Any) -> Any:
        return estimate([generator.permutation(of_group) for of_group in rewards], *others)

    training.advantages = permuted  # type: ignore[assignment]


def assert_learned(effect: Effect) -> None:
    assert effect.in_errors >= ERRORS, effect
