"""Intervals against published numbers, a bootstrap, and what they promise: to hold the truth 95 times in 100."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rl.run.statistics import Estimate, crossed_difference, mean, mean_if_any, paired_difference, solve_rate

NAN = math.nan


@pytest.mark.parametrize(
    ("solved", "count", "low", "high"),
    [
        # R: prop.test(x, n, correct = FALSE)$conf.int
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_wilson_interval_of_newcombe(solved: int, count: int, low: float, high: float) -> None:
    """The worked examples of R. Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    estimate = solve_rate(np.arange(count) < solved)
    assert estimate.value == pytest.approx(solved / count)
    assert (estimate.low, estimate.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_copies_of_a_sample_are_no_information() -> None:
    once = (np.arange(50) < 20).astype(float)
    copies = np.repeat(once[:, None], 16, axis=1)
    alone, together = solve_rate(once), solve_rate(copies)
    assert together.low == pytest.approx(alone.low, abs=2e-3)
    assert together.high == pytest.approx(alone.high, abs=2e-3)
    assert mean(copies) == mean(once)


def test_all_solved_keeps_the_width_of_the_problems_not_of_the_samples() -> None:
    assert solve_rate(np.ones((20, 64))) == solve_rate(np.ones(20))


@pytest.mark.parametrize("spread", [0.0, 0.5, 3.0])
def test_the_interval_holds_the_truth_95_times_in_100(spread: float) -> None:
    """Problems of different difficulty, 4 samples each; spread 0 is independent samples."""
    generator = np.random.default_rng(0)
    covered = {"solve_rate": 0, "mean": 0, "as if independent": 0}
    truth = (1 / (1 + np.exp(-spread * generator.standard_normal(200_000)))).mean()
    trials = 1500
    for _ in range(trials):
        chance = 1 / (1 + np.exp(-spread * generator.standard_normal(60)))
        solved = (generator.random((60, 4)) < chance[:, None]).astype(float)
        intervals = {
            "solve_rate": solve_rate(solved),
            "mean": mean(solved),
            "as if independent": solve_rate(solved.reshape(-1)),
        }
        for name, estimate in intervals.items():
            covered[name] += estimate.low <= truth <= estimate.high
    assert covered["solve_rate"] / trials == pytest.approx(0.95, abs=0.025)
    assert covered["mean"] / trials == pytest.approx(0.95, abs=0.025)
    if spread == 3.0:  # the control: ignoring the clusters is what this module is there to avoid
        assert covered["as if independent"] / trials < 0.85


def test_mean_by_hand() -> None:
    """Problem means 0, 1, 2, 3: sample standard deviation 1.290994, standard error half of it."""
    estimate = mean(np.array([[-1.0, 1.0], [1.0, 1.0], [2.0, 2.0], [2.5, 3.5]]))
    assert (estimate.value, estimate.problems) == (1.5, 4)
    assert (estimate.low, estimate.high) == (pytest.approx(0.234849, abs=1e-6), pytest.approx(2.765151, abs=1e-6))


def test_clustered_interval_agrees_with_a_bootstrap_over_problems() -> None:
    generator = np.random.default_rng(1)
    values = generator.normal(size=(80, 1)) + 0.5 * generator.normal(size=(80, 4))
    resampled = [values[generator.integers(0, 80, 80)].mean() for _ in range(4000)]
    low, high = np.quantile(resampled, [0.025, 0.975])
    estimate = mean(values)
    assert estimate.value == pytest.approx(values.mean())
    assert (estimate.low, estimate.high) == (pytest.approx(low, abs=0.03), pytest.approx(high, abs=0.03))


def test_pairing_takes_out_the_difficulty_of_the_problems() -> None:
    generator = np.random.default_rng(2)
    difficulty = generator.normal(size=(100, 1))
    before = difficulty + 0.1 * generator.normal(size=(100, 4))
    after = difficulty + 0.05 + 0.1 * generator.normal(size=(100, 2))
    estimate = paired_difference(before, after)
    differences = after.mean(axis=1) - before.mean(axis=1)
    resampled = [generator.choice(differences, 100).mean() for _ in range(4000)]
    low, high = np.quantile(resampled, [0.025, 0.975])
    assert (estimate.low, estimate.high) == (pytest.approx(low, abs=0.002), pytest.approx(high, abs=0.002))
    assert estimate.low > 0
    unpaired = mean(after).high - mean(before).low
    assert estimate.high - estimate.low < 0.2 * unpaired


def test_unscored_samples_and_problems_are_left_out() -> None:
    estimate = solve_rate(np.array([[1.0, NAN], [0.0, 1.0], [NAN, NAN]]))
    assert estimate.value == pytest.approx((1.0 + 0.5) / 2)
    assert estimate.problems == 2
    difference = paired_difference(np.array([0.0, NAN, 0.0, 1.0]), np.array([1.0, 1.0, NAN, 1.0]))
    assert (difference.value, difference.problems) == (0.5, 2)


def test_every_problem_weighs_the_same() -> None:
    assert mean(np.array([[1.0, 1.0, 1.0], [0.0, NAN, NAN]])).value == 0.5


def test_unusable_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="no problem has a scored sample"):
        solve_rate(np.array([NAN]))
    with pytest.raises(ValueError, match="graded"):
        solve_rate(np.array([0.5, 1.0]))
    with pytest.raises(ValueError, match="at least two"):
        mean(np.array([[0.5, 1.0]]))
    with pytest.raises(ValueError, match="infinite"):
        mean(np.array([0.5, math.inf]))
    with pytest.raises(ValueError, match="2 before, 3 after"):
        paired_difference(np.zeros(2), np.zeros(3))


def test_one_problem_still_has_a_solve_rate() -> None:
    estimate = solve_rate(np.array([1.0]))
    assert estimate.value == 1.0
    assert 0.0 < estimate.low < 0.5


def test_one_problem_has_a_mean_and_a_gain_without_an_interval() -> None:
    alone = mean_if_any(np.array([[0.5, 1.0], [NAN, NAN]]))
    assert (alone.value, alone.interval, alone.metrics("a")) == (0.75, None, {"a": 0.75})
    assert paired_difference(np.array([0.25]), np.array([1.0])).value == 0.75
    assert paired_difference(np.array([NAN, 1.0]), np.array([1.0, NAN])) is None
    assert mean_if_any(np.array([NAN])) is None


def test_metrics_are_flat() -> None:
    assert Estimate(0.5, 0.4, 0.6, 9).metrics("a/b") == {"a/b": 0.5, "a/b_low": 0.4, "a/b_high": 0.6}


def test_crossed_difference_by_hand():
    """Means of problems 1/2, 1, 0, 1/2: variance of their mean 1/24; both seeds 1/2: 0; the rest 1/24."""
    after = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
    gain = crossed_difference(np.zeros((4, 2)), after)
    half = 3.182446 * (1 / 24) ** 0.5  # Student's quantile with three degrees of freedom
    assert gain.value == 0.5
    assert (gain.low, gain.high) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-6)


def test_one_seed_leaves_the_problems_alone():
    before, after = np.array([[0.0], [1.0], [0.0], [np.nan]]), np.array([[1.0], [1.0], [0.0], [1.0]])
    assert crossed_difference(before, after) == paired_difference(before, after)


def test_lucky_seeds_are_in_the_interval():
    """A seed that lifts every problem: 95 % of the intervals over both hold the truth, over problems alone few do."""
    generator = np.random.default_rng(0)
    truth, before = 0.2, np.zeros((60, 3))
    crossed = alone = 0
    for _ in range(400):
        after = (
            truth + generator.normal(0, 0.1, (60, 1)) + generator.normal(0, 0.1, 3) + generator.normal(0, 0.3, (60, 3))
        )
        held = [found(before, after) for found in (crossed_difference, paired_difference)]
        crossed += held[0].low <= truth <= held[0].high
        alone += held[1].low <= truth <= held[1].high
    assert crossed / 400 == pytest.approx(0.95, abs=0.03)
    assert alone / 400 < 0.7
