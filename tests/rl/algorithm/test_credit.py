"""Advantages of steps against MDPO's formulas, read literally."""

from __future__ import annotations

import numpy as np
import pytest

from configs.algorithm_options import AdvantageKind, AlgorithmOptions
from rl.algorithm.advantages import AdvantageEstimator
from rl.algorithm.credit import step_advantages, step_scores

NAN = np.nan
REWARDS = np.random.default_rng(0).normal(size=(5, 6))


def literal(rewards: np.ndarray) -> np.ndarray:
    """Sample by sample, step by step, as the paper has it; no reward may be missing."""
    samples, steps = rewards.shape
    scores = np.zeros((samples, steps))
    for i in range(samples):
        for t in range(steps):
            gained = rewards[i, t] - (rewards[i, t - 1] if t > 0 else 0.0)
            later = np.mean(rewards[i, t + 1 :]) if t < steps - 1 else rewards[i, t]
            scores[i, t] = gained + 1 + later  # the 1 cancels
    found = np.zeros((samples, steps))
    for t in range(steps):
        column = scores[:, t]
        found[:, t] = (column - column.mean()) / (column.std() + 1e-4)
    return found


def test_advantages_are_those_of_the_paper() -> None:
    advantage, valid = step_advantages(REWARDS)
    assert valid.all()
    np.testing.assert_allclose(advantage, literal(REWARDS), atol=1e-6)


@pytest.mark.parametrize("other", [np.cumsum(REWARDS, 1), REWARDS[:, ::-1], REWARDS + np.arange(5)[:, None]])
def test_other_rewards_would_be_noticed(other: np.ndarray) -> None:
    """The control: a formula that looked at single rewards, or at their order, in another way."""
    assert np.abs(step_advantages(REWARDS)[0] - literal(other)).max() > 0.1


def test_a_shorter_sample_is_scored_as_if_alone() -> None:
    ragged = REWARDS.copy()
    ragged[0, 4:] = NAN
    np.testing.assert_allclose(step_scores(ragged)[0, :4], step_scores(REWARDS[:1, :4])[0])
    assert np.isnan(step_scores(ragged)[0, 4:]).all()
    advantage, valid = step_advantages(ragged)
    assert (valid == ~np.isnan(ragged)).all()
    np.testing.assert_allclose(advantage[1:, 4:], literal(REWARDS[1:])[:, 4:], atol=1e-6)  # those that have the step


def test_a_missing_reward_costs_its_step_and_the_next() -> None:
    """An estimate that could not be scored: neither what it gained is known, nor what the next one did."""
    scores = step_scores(np.array([[1.0, NAN, 3.0, 6.0]]))
    assert np.isnan(scores[0]).tolist() == [False, True, True, False]
    assert scores[0, 0] == 1 + (3 + 6) / 2
    assert scores[0, 3] == (6 - 3) + 6
    assert step_scores(np.array([[1.0, 4.0, NAN]]))[0, 1] == (4 - 1) + 4  # no later one is known


def test_a_step_that_one_sample_has_is_left_out() -> None:
    rewards = np.array([[1.0, 2.0, 5.0], [0.0, 1.5, NAN], [NAN, NAN, NAN]])
    advantage, valid = step_advantages(rewards)
    assert valid.tolist() == [[True, True, False], [True, True, False], [False] * 3]
    assert (advantage[~valid] == 0).all()
    assert not step_advantages(np.full((3, 2), NAN))[1].any()


def test_the_steps_of_largest_advantage_are_selected_for_the_whole_group() -> None:
    rewards = np.zeros((4, 5))
    rewards[:2, 2] = 1.0  # half of the group is right at one step only
    everything, _ = step_advantages(rewards)
    advantage, valid = step_advantages(rewards, selected=2)
    kept = np.sort(np.abs(everything).sum(0).argsort(kind="stable")[-2:])
    assert valid.any(0).nonzero()[0].tolist() == kept.tolist()
    assert (valid.sum(0)[kept] == 4).all()
    assert (advantage[:, kept] == everything[:, kept]).all()
    assert (step_advantages(rewards, selected=9)[1]).all()  # fewer steps than asked for


def test_an_infinite_reward_is_refused() -> None:
    with pytest.raises(ValueError, match="the reward of an estimate is infinite"):
        step_advantages(np.array([[np.inf, 1.0], [0.0, 1.0]]))


def estimator(**options) -> AdvantageEstimator:
    return AdvantageEstimator(AlgorithmOptions(advantage=AdvantageKind.per_step, **options))


def test_a_group_teaches_if_any_of_its_steps_does() -> None:
    """Equal final rewards are no reason to leave it out, rounding is no reason to keep it."""
    differs = np.array([[0.0, 1.0], [1.0, 1.0]])
    equal = np.full((2, 3), 0.1) + np.array([[0.0, 1e-17, 0.0], [0.0, 0.0, 1e-17]])
    steps = estimator()
    (first, _), (second, _) = steps([differs, equal], ["a", "b"])
    assert steps.teaches(differs[:, -1], first)
    assert not steps.teaches(equal[:, -1], second)


def test_clip_and_selection_come_from_the_options() -> None:
    (advantage, valid), *_ = estimator(selected_steps=1, advantage_clip=0.5)([REWARDS], ["a"])
    assert valid.any(0).sum() == 1
    assert np.abs(advantage).max() == 0.5
