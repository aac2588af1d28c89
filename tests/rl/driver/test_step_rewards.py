"""Estimates are scored beside the finished samples, with the same columns, and cost them nothing."""

from __future__ import annotations

import numpy as np
import pytest

from rewards.options import RewardOptions, RewardTerm
from rewards.scoring.scores import ScoreRequest
from rewards.scoring.worker import RewardWorker
from rl.driver.step_rewards import score_steps
from rl.run.scored import unscored_estimates
from rollout.worker import Estimates

NAN = np.nan


@pytest.fixture
def worker():
    found = []

    def make(function: str) -> RewardWorker:
        terms = {"task": RewardTerm(function=f"tests.rl.support.step_reward_functions.{function}", weight=2.0)}
        found.append(RewardWorker(RewardOptions(terms=terms, timeout_seconds=1.0)))
        return found[-1]

    yield make
    for one in found:
        one.close()


def test_each_estimate_has_the_columns_of_its_sample(worker) -> None:
    """But for those that the rollout knows better."""
    request = ScoreRequest(
        prompts=["p", "qq"],
        completions=["a", "b"],
        completion_ids=[[1], [1, 2]],
        columns={"answer": [10.0, 20.0], "denoising_rounds": [3, 1]},
        update=0,
    )
    estimates = Estimates(["x", "y"], [2, 0], [[1, 2, 3], [1]], {"denoising_rounds": [1, 2]})
    scores, steps = score_steps(worker("digits"), request, estimates)
    # 1000 x prompt length + answer + 0.1 x rounds + 0.01 x ids
    np.testing.assert_allclose(scores.total, [2 * 1010.31, 2 * 2020.12])
    np.testing.assert_allclose(scores.terms["task"], [1010.31, 2020.12])
    np.testing.assert_allclose(steps, [[2 * 1010.13, 2 * 1010.21, 2 * 1010.31], [2 * 2020.12, NAN, NAN]])


def test_a_bad_estimate_costs_itself(worker) -> None:
    request = ScoreRequest(prompts=["p"] * 3, completions=["good", "good", "raise"], update=0)
    estimates = Estimates(["good", "hang", "raise", "good"], [2, 1, 1])
    scores, steps = score_steps(worker("faulty"), request, estimates)
    np.testing.assert_array_equal(scores.total, [2.0, 2.0, NAN])
    np.testing.assert_array_equal(steps, [[2.0, NAN, 2.0], [NAN, 2.0, NAN], [2.0, NAN, NAN]])
    assert [(failure.index, failure.kind) for failure in scores.failures] == [(2, "exception")]


def test_estimates_that_all_hang_cost_no_finished_sample(worker) -> None:
    request = ScoreRequest(prompts=["p"] * 2, completions=["good"] * 2, update=0)
    scores, steps = score_steps(worker("faulty"), request, Estimates(["kill"] * 3, [2, 1]))
    np.testing.assert_array_equal(scores.total, [2.0, 2.0])
    np.testing.assert_array_equal(steps, [[NAN, NAN, 2.0], [NAN, 2.0, NAN]])


def test_missing_estimates_are_counted_and_steps_that_a_sample_has_not_are_none() -> None:
    assert unscored_estimates(np.array([[[1.0, NAN, 2.0], [NAN, 0.0, NAN]], [[NAN, NAN, 3.0], [1.0, NAN, NAN]]])) == 4
