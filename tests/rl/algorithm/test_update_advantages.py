"""Advantages over a whole update and over a prompt's history, and what an estimator does with groups."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from configs.algorithm_options import AdvantageKind, AlgorithmOptions, CustomOptions, RunningOptions
from rl.algorithm.advantages import (
    AdvantageEstimator,
    advantages,
    in_band,
)
from rl.algorithm.zscore import STD_EPSILON
from rollout.branching import Tree

NAN = math.nan


def estimator(kind: AdvantageKind, **options) -> AdvantageEstimator:
    return AdvantageEstimator(AlgorithmOptions(advantage=kind, **options))


def two_groups() -> list[np.ndarray]:
    return [np.array([0.0, 1.0, NAN, 2.0]), np.array([10.0, 10.5, 10.0, 10.5])]


def test_global_std_centres_by_group_and_scales_by_the_update():
    groups = two_groups()
    std = np.concatenate(groups)[[0, 1, 3, 4, 5, 6, 7]].std()
    (first, valid), (second, _) = estimator(AdvantageKind.global_std)(groups, ["a", "b"])
    np.testing.assert_allclose(first, np.array([-1, 0, 0, 1]) / (std + STD_EPSILON), rtol=1e-6)
    np.testing.assert_allclose(second, np.array([-0.25, 0.25, -0.25, 0.25]) / (std + STD_EPSILON), rtol=1e-6)
    assert valid.tolist() == [True, True, False, True]


def test_a_sample_that_is_alone_in_its_group_has_no_centre_to_differ_from():
    groups = [np.array([NAN, 1.0, NAN]), np.array([0.0, 1.0, 2.0])]
    (_, alone), (_, others) = estimator(AdvantageKind.global_std)(groups, ["a", "b"])
    assert not alone.any()
    assert others.all()


@pytest.mark.filterwarnings("error")  # a mean of nothing
def test_groups_without_scores_have_no_advantages_and_no_warnings():
    nothing, some = np.full(2, NAN), np.array([0.0, 1.0])
    for kind in (AdvantageKind.global_std, AdvantageKind.batch, AdvantageKind.running):
        for rewards in ([nothing], [nothing, some]):
            advantage, valid = estimator(kind)(rewards, ["a", "b"][: len(rewards)])[0]
            assert advantage.tolist() == [0.0, 0.0]
            assert not valid.any()
    assert not in_band(nothing, (0.0, 1.0))


def test_batch_compares_all_samples_of_the_update():
    groups = two_groups()
    scored = np.concatenate(groups)[[0, 1, 3, 4, 5, 6, 7]]
    found = estimator(AdvantageKind.batch)(groups, ["a", "b"])
    every = np.concatenate([advantage[valid] for advantage, valid in found])
    np.testing.assert_allclose(every, (scored - scored.mean()) / (scored.std() + STD_EPSILON), rtol=1e-5)


def test_running_statistics_take_over_once_there_are_enough():
    """DDPO's tracker, read independently: the prompt's latest rewards, this update's included."""
    running = estimator(AdvantageKind.running, running=RunningOptions(buffer=6, minimum=6))
    rewards = np.random.default_rng(0).normal(size=(4, 2, 4))
    history: dict[str, list[float]] = {"a": [], "b": []}
    for update in rewards:
        found = running(list(update), ["a", "b"])
        for prompt, group, (advantage, _) in zip("ab", update, found, strict=True):
            history[prompt] = [*history[prompt], *group][-6:]
            known = np.array(history[prompt])
            source = known if len(known) >= 6 else update
            np.testing.assert_allclose(advantage, (group - source.mean()) / (source.std() + STD_EPSILON), rtol=1e-5)


def test_running_statistics_survive_a_checkpoint():
    options = {"running": RunningOptions(buffer=6, minimum=4)}  # which the second update of four rewards overfills
    straight, stopped = (estimator(AdvantageKind.running, **options) for _ in range(2))
    first, second = np.random.default_rng(1).normal(size=(2, 2, 4))
    for each in (straight, stopped):
        each(list(first), ["a", "b"])
    resumed = estimator(AdvantageKind.running, **options)
    resumed.load(json.loads(json.dumps(stopped.state())))
    forgetful = estimator(AdvantageKind.running, **options)
    expected, found, forgotten = (each(list(second), ["a", "b"]) for each in (straight, resumed, forgetful))
    for one, other, third in zip(expected, found, forgotten, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        assert (one[0] != third[0]).any()


@pytest.mark.parametrize("kind", [AdvantageKind.zscore, AdvantageKind.batch])
def test_advantages_are_limited(kind):
    groups = [np.array([0.0] * 99 + [1.0])]
    assert estimator(kind)(groups, ["a"])[0][0].max() > 5
    assert estimator(kind, advantage_clip=5.0)(groups, ["a"])[0][0].max() == 5


def test_extremes_are_of_the_group_or_of_the_last_fork_s_siblings():
    """The mean is 0, so that centred rewards are themselves."""
    rewards, extreme = np.array([-4.0, -3, 4, 5, -5, 3]), estimator(AdvantageKind.centred, extremes=1.5)
    ((advantage, valid),) = extreme([rewards], ["a"])
    assert advantage.tolist() == [0, 0, 0, 5, -5, 0]
    assert valid.tolist() == [False, False, False, True, True, False]
    tree = Tree(forks=(1, 3), factors=(2, 3), steps=4)  # siblings are the first three and the last three
    ((advantage, valid),) = extreme([rewards], ["a"], tree)
    assert advantage[:, 3].tolist() == [-4, 0, 4, 5, -5, 0]
    assert valid[:, 3].tolist() == [True, False, True, True, True, False]
    assert not valid[:, :3].any()  # steps that leaves share belong to none


def test_siblings_are_those_of_the_last_of_several_forks():
    rewards = np.arange(12.0) - 5.5
    tree = Tree(forks=(0, 1, 3), factors=(2, 3, 2), steps=4)
    ((_, valid),) = estimator(AdvantageKind.centred, extremes=3.0)([rewards], ["a"], tree)
    # Of each pair the better one from 3 on, the worse one down to -3; three siblings would leave the second one out.
    assert valid[:, 3].tolist() == [True, False, True, False, False, False, False, False, False, True, False, True]


@pytest.mark.parametrize(("leaf_weights", "leaves"), [(False, [1, 1, 1, 1]), (True, [4, 2, 2, 1])])
def test_branches_count_once_or_for_their_leaves(leaf_weights, leaves):
    """Of the leaves 0, 1, 3, 4 the pairs part at step 1, with means 0.5 and 3.5, and the leaves at step 3.
    What leaves share is trained with the first of them."""
    tree = Tree(forks=(1, 3), factors=(2, 2), steps=4)
    judge = estimator(AdvantageKind.siblings, leaf_weights=leaf_weights)
    ((advantage, _),) = judge([np.array([0.0, 1.0, 3.0, 4.0])], ["a"], tree)
    once = np.array([[0, -3, -3, -1], [0, 0, 0, 1], [0, 3, 3, -1], [0, 0, 0, 1]])
    np.testing.assert_allclose(advantage, once * leaves, atol=1e-6)


def test_equal_rewards_teach_only_when_others_are_compared_with():
    """And nothing explodes: no division by a spread of nothing."""
    equal, other = np.full(4, 0.3), np.array([0.0, 0.0, 0.0, 1.0])
    for kind in (AdvantageKind.zscore, AdvantageKind.global_std, AdvantageKind.centred):
        judge = estimator(kind)
        (advantage, _), _ = judge([equal, other], ["a", "b"])
        assert not judge.teaches(equal, advantage)
        assert np.abs(advantage).max() < 1e-6
    judge = estimator(AdvantageKind.batch)
    (advantage, _), _ = judge([equal, other], ["a", "b"])
    assert judge.teaches(equal, advantage)
    (alone, _) = judge([equal], ["a"])[0]
    assert not judge.teaches(equal, alone)


def test_raw_rewards_are_themselves_and_always_teach():
    """A value model may have predicted something else of equal rewards, and of a lone sample."""
    judge = estimator(AdvantageKind.raw, advantage_clip=0.5)
    found = judge([np.array([0.3, NAN, 7.0]), np.array([0.3]), np.array([NAN])], ["a", "b", "c"])
    (advantage, valid), (alone, alone_valid), (_, failed_valid) = found
    assert advantage.dtype == np.float32
    np.testing.assert_array_equal(advantage, np.array([0.3, 0.0, 0.5], np.float32))
    assert valid.tolist() == [True, False, True]
    assert alone.tolist() == [pytest.approx(0.3)]
    assert alone_valid.all()
    assert not failed_valid.any()
    equal = np.full(4, 0.3)
    assert judge.teaches(equal, judge([equal], ["a"])[0][0])
    assert judge.teaches(np.zeros(1))


def above_the_median(rewards: np.ndarray) -> np.ndarray:
    return np.where(rewards == 7, NAN, rewards - np.nanmedian(rewards))


def test_advantages_of_the_user_s_own():
    """A sample without a reward, or that the function leaves out, takes no part; the option's clip holds here too."""
    options = {"custom": CustomOptions(advantage=f"{__name__}.above_the_median"), "advantage_clip": 2.0}
    judge = estimator(AdvantageKind.custom, **options)
    ((advantage, valid),) = judge([np.array([1.0, 2.0, NAN, 7.0, -6.0])], ["a"])
    assert advantage.tolist() == [-0.5, 0.5, 0.0, 0.0, -2.0]  # the median of 1, 2, 7 and -6 is 1.5
    assert valid.tolist() == [True, True, False, False, True]
    assert judge.teaches(np.ones(2), np.array([0.0, 1.0]))
    assert not judge.teaches(np.array([0.0, 1.0]), np.zeros(2))
    with pytest.raises(ValueError, match="a function of the user's"):
        advantages(np.ones(2), AdvantageKind.custom)


@pytest.mark.parametrize(
    ("options", "solved", "admitted"),
    [
        ({}, None, True),
        ({"solved_band": (0.2, 0.8)}, [1.0, 0.0, NAN], True),
        ({"solved_band": (0.2, 0.8)}, [1.0, 1.0, NAN], False),
        ({"least_difference": 0.9}, None, True),
        ({"least_difference": 1.0}, None, False),
    ],
)
def test_which_groups_the_options_let_in(options, solved, admitted):
    rewards = np.array([0.0, 1.0, NAN])
    judge = estimator(AdvantageKind.centred, **options)
    assert judge.admits(rewards, None if solved is None else np.array(solved)) is admitted
    for filtered in (True, False):  # a group that teaches nothing
        judge = estimator(AdvantageKind.centred, filter_zero_variance=filtered)
        assert judge.admits(np.ones(3), None) is not filtered
    with pytest.raises(ValueError, match="say which are solved"):
        estimator(AdvantageKind.centred, solved_band=(0.2, 0.8)).admits(rewards, None)
