"""Advantages against numbers worked out by hand, and the properties that define them."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from configs.algorithm_options import AdvantageKind, AlgorithmOptions, CustomOptions, RunningOptions
from configs.compose import compose
from configs.schema import Config
from rl.algorithm.advantages import (
    OFFLINE_ADVANTAGES,
    AdvantageEstimator,
    advantages,
    combined,
    differs,
    has_signal,
    in_band,
    normalised,
)
from rl.algorithm.zscore import STD_EPSILON
from rl.api.configuration import algorithm_options
from rl.driver.loop import Loop
from rollout.branching import Tree

NAN = math.nan
RELATIVE = [AdvantageKind.zscore, AdvantageKind.centred, AdvantageKind.leave_one_out]
groups = hnp.arrays(np.float64, st.integers(2, 12), elements=st.floats(-10, 10, width=16))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (AdvantageKind.centred, [-0.75, 0.25, 0.25, 0.25]),
        (AdvantageKind.leave_one_out, [-1.0, 1 / 3, 1 / 3, 1 / 3]),
        # population std of 0, 1, 1, 1 is sqrt(3)/4 = 0.4330127; the sample std would be 0.5
        (AdvantageKind.zscore, [-0.75 / 0.4331127, *[0.25 / 0.4331127] * 3]),
        # w+ = softmax(0, 1, 1, 1) = (0.109232, 0.296923 x 3), w- = softmax(1, 0, 0, 0) = (0.475367, 0.174878 x 3)
        (AdvantageKind.softmax, [-1.4645405, *[0.4881802] * 3]),
    ],
)
def test_by_hand(kind: AdvantageKind, expected: list[float]) -> None:
    advantage, valid = advantages(np.array([0.0, 1.0, 1.0, 1.0]), kind)
    assert advantage.dtype == np.float32
    np.testing.assert_allclose(advantage, expected, rtol=2e-6)
    assert valid.all()


@pytest.mark.parametrize(
    ("algorithm", "epsilon", "ddof"), [("ddpo", 1e-6, 0), ("ddpo_sf", 1e-6, 0), ("dance_grpo", 1e-8, 1)]
)
@pytest.mark.parametrize("apart", [1.0, 1e-7])
def test_published_units_of_groups_that_hardly_differ(algorithm: str, epsilon: float, ddof: int, apart: float) -> None:
    """With 1e-4 in the place of DanceGRPO's 1e-8, four rewards 1e-7 apart would weigh a thousandth."""
    options = algorithm_options(algorithm)
    rewards = 0.5 + apart * np.array([0.0, 1.0, 1.0, 0.0])
    ((found, _),) = AdvantageEstimator(options)([rewards], ["p"])
    expected = (rewards - rewards.mean()) / (rewards.std(ddof=ddof) + epsilon)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    ((usual, _),) = AdvantageEstimator(replace(options, advantage_epsilon=1e-4, sample_std=False))([rewards], ["p"])
    if apart < 1:
        assert np.abs(found).max() > 50 * np.abs(usual).max()


@pytest.mark.parametrize("kind", [kind for kind in AdvantageKind if kind.divides])
def test_every_advantage_that_divides_reads_its_unit(kind: AdvantageKind) -> None:
    """Of one group all kinds are the same z-score: of its samples, of its steps, of its branches."""
    options = AlgorithmOptions(advantage=kind, advantage_epsilon=0.5, sample_std=True)
    rewards = np.array([0.0, 1.0, 3.0])
    expected = (rewards - rewards.mean()) / (rewards.std(ddof=1) + 0.5)
    told = rewards[:, None] / 2 if kind is AdvantageKind.per_step else rewards  # r_1 + r_1 for a single step
    tree = Tree((0,), (3,), 1) if kind.of_branches else None
    ((found, valid),) = AdvantageEstimator(options)([told], ["p"], tree)
    assert valid.all()
    np.testing.assert_allclose(found.reshape(-1), expected, rtol=1e-6)


def test_a_lone_sample_has_no_spread() -> None:
    options = AlgorithmOptions(advantage=AdvantageKind.batch, sample_std=True)
    ((found, _),) = AdvantageEstimator(options)([np.array([2.0])], ["p"])
    assert found.tolist() == [0.0]


def test_wd1_without_the_negatives() -> None:
    options = AlgorithmOptions(advantage=AdvantageKind.softmax, positive_only=True)
    ((found, _),) = AdvantageEstimator(options)([np.array([0.0, 1.0, 1.0, 1.0])], ["p"])
    np.testing.assert_allclose(found, [0.4369271, *[1.1876910] * 3], rtol=2e-6)  # 4 softmax(0, 1, 1, 1)


def test_the_softmax_of_large_rewards_does_not_overflow() -> None:
    advantage, _ = advantages(np.array([0.0, 4000.0]), AdvantageKind.softmax)
    assert advantage.tolist() == [-2.0, 2.0]


def test_best_and_worst_make_a_pair_and_leave_the_rest_out() -> None:
    advantage, valid = advantages(np.array([0.5, 2.0, NAN, -1.0, 2.0]), AdvantageKind.best_worst)
    assert advantage.tolist() == [0, 1, 0, -1, 0]
    assert valid.tolist() == [False, True, False, True, False]
    assert not advantages(np.array([1.0, 1.0, NAN]), AdvantageKind.best_worst)[1].any()


@pytest.mark.parametrize(("solved", "inside"), [(0, False), (1, True), (2, True), (4, True), (5, False)])
def test_the_band_of_solved_fractions_includes_its_ends(solved: int, inside: bool) -> None:
    assert in_band(np.array([1.0] * solved + [0.0] * (5 - solved) + [NAN]), (0.2, 0.8)) is inside
    assert not in_band(np.array([NAN]), (0.0, 1.0))


@pytest.mark.parametrize("kind", [*RELATIVE, AdvantageKind.softmax])
def test_unscored_samples_take_no_part(kind: AdvantageKind) -> None:
    advantage, valid = advantages(np.array([NAN, 0.0, 1.0, NAN, 1.0, 1.0]), kind)
    alone, _ = advantages(np.array([0.0, 1.0, 1.0, 1.0]), kind)
    assert valid.tolist() == [False, True, True, False, True, True]
    assert advantage[valid].tolist() == alone.tolist()
    assert advantage[~valid].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("rewards", [[1.0], [NAN, 1.0, NAN], [NAN, NAN]])
def test_a_lone_sample_is_compared_with_nothing(rewards: list[float]) -> None:
    for kind in RELATIVE:
        advantage, valid = advantages(np.array(rewards), kind)
        assert not valid.any()
        assert not advantage.any()
    assert not has_signal(np.array(rewards))


def test_offline_advantages_are_not_of_rewards() -> None:
    assert {AdvantageKind.constant: (1.0,), AdvantageKind.preference: (1.0, -1.0)} == OFFLINE_ADVANTAGES
    assert {kind for kind in AdvantageKind if kind.offline} == OFFLINE_ADVANTAGES.keys()
    for kind in OFFLINE_ADVANTAGES:
        with pytest.raises(ValueError, match=f"advantage={kind.name} belongs to answers in the data"):
            advantages(np.array([0.0, 1.0]), kind)


@given(groups)
def test_relative_advantages_sum_to_zero(rewards: np.ndarray) -> None:
    for kind in RELATIVE:
        assert advantages(rewards, kind)[0].sum(dtype=np.float64) == pytest.approx(0.0, abs=1e-4)


@given(groups)
def test_leave_one_out_is_each_reward_minus_the_mean_of_the_others(rewards: np.ndarray) -> None:
    others = [np.delete(rewards, i).mean() for i in range(len(rewards))]
    advantage, _ = advantages(rewards, AdvantageKind.leave_one_out)
    np.testing.assert_allclose(advantage, rewards - others, atol=1e-4)
    count = len(rewards)
    np.testing.assert_allclose(
        advantage, count / (count - 1) * advantages(rewards, AdvantageKind.centred)[0], rtol=1e-5, atol=1e-6
    )


@given(groups, st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(rewards: np.ndarray, shuffler: object) -> None:
    order = list(range(len(rewards)))
    shuffler.shuffle(order)  # type: ignore[attr-defined]
    for kind in RELATIVE:
        np.testing.assert_allclose(advantages(rewards[order], kind)[0], advantages(rewards, kind)[0][order], atol=1e-4)
    assert has_signal(rewards[order]) == has_signal(rewards)


@given(groups)
def test_groups_without_signal_have_no_advantage_and_others_have(rewards: np.ndarray) -> None:
    largest = np.abs(advantages(rewards, AdvantageKind.centred)[0]).max()
    assert (largest > 0) == has_signal(rewards)


def test_rounding_of_equal_sums_is_not_signal() -> None:
    assert 0.1 + 0.2 != 0.3
    assert not has_signal(np.array([0.1 + 0.2, 0.3]))
    assert not has_signal(np.array([0.0, 0.0, NAN]))
    assert has_signal(np.array([0.30001, 0.3]))
    assert has_signal(np.array([1e-9, 0.0]))  # small rewards are not equal ones


def test_spo_s_threshold_is_a_difference_of_scores() -> None:
    """Its code: a pair counts if softmax([best, worst]) differs by more than 0.3."""
    least = math.log(1.3 / 0.7)
    assert compose(["recipe=quickstart_image", "algorithm=spo"]).config.algorithm.least_difference == pytest.approx(
        least, abs=1e-3
    )
    generator, counted = np.random.default_rng(0), []
    for scores in generator.normal(scale=0.4, size=(200, 4)):
        best, worst = np.exp([scores.max(), scores.min()]) / np.exp([scores.max(), scores.min()]).sum()
        counted.append(best - worst > 0.3)
        assert differs(scores, least) == counted[-1]
        assert differs(np.append(scores, NAN), least) == counted[-1]
    assert 20 < sum(counted) < 180  # else the comparison says nothing
    assert not differs(np.array([NAN, 7.0]), least)
    assert not differs(np.array([0.5, 0.0]), 0.5)


@pytest.mark.parametrize(
    ("least", "filtered", "expected"), [(None, True, [1, 2]), (0.5, True, [2]), (0.5, False, [2]), (None, False, None)]
)
def test_groups_that_hardly_differ_are_left_out(least, filtered, expected) -> None:
    """Of every group: with step candidates of every step of a prompt, and before refills are asked for."""
    options = AlgorithmOptions(least_difference=least, filter_zero_variance=filtered)
    loop = object.__new__(Loop)
    loop.config, loop.advantages = Config(algorithm=options), AdvantageEstimator(options)
    rewards = [np.full(4, 0.3), np.array([0.0, 0.4, 0.2, NAN]), np.array([0.0, 0.6, 0.2, 0.1])]
    assert [i for i, group in enumerate(rewards) if loop.advantages.admits(group, group >= 1)] == (
        expected or [0, 1, 2]
    )


def test_infinite_and_batched_rewards_are_refused() -> None:
    for rewards in (np.array([0.0, math.inf]), np.zeros((2, 2))):
        with pytest.raises(ValueError, match=r"infinite|one group"):
            advantages(rewards, AdvantageKind.centred)
        with pytest.raises(ValueError, match=r"infinite|one group"):
            has_signal(rewards)


# Advantages over a whole update, and over a prompt's history.


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


def test_sums_of_normalised_terms_are_of_each_group_by_itself():
    rewards = np.array([[0.0, 1.0, NAN], [5.0, 5.0, 5.0]])
    terms = {"a": np.array([[0.0, 1.0, 3.0], [4.0, 6.0, 8.0]]), "b": np.array([[2.0, 2.0, 2.0], [0.0, 0.0, 3.0]])}
    found = normalised(rewards, terms, {"a": 1.0, "b": 2.0})
    first = (np.array([0.0, 1.0]) - 4 / 3) / np.sqrt(14 / 9)
    second = np.array([-1.0, 0.0, 1.0]) * np.sqrt(1.5) + 2 * np.array([-1.0, -1.0, 2.0]) / np.sqrt(2)
    np.testing.assert_allclose(found, [[*first, NAN], second], rtol=1e-3, atol=1e-3)


def test_terms_of_any_size_count_by_their_weights():
    terms = {
        "answer": np.array([0.0, 1.0, 1.0, 0.0]),
        "speed": np.array([100.0, 300.0, NAN, 100.0]),
        "measure": np.array([5.0, 1.0, 2.0, 3.0]),
        "equal": np.ones(4),
    }
    weights = {"answer": 1.0, "speed": 0.5, "measure": 0.0, "equal": 7.0}
    speed = np.array([100, 300, 100]) - 500 / 3
    speed = speed / np.sqrt((speed**2).mean())
    expected = np.array([-1.0, 1.0, 1.0, -1.0]) + 0.5 * np.array([speed[0], speed[1], 0.0, speed[2]])
    np.testing.assert_allclose(combined(terms, weights), expected, atol=1e-3)
    larger = {**terms, "speed": 1000 * terms["speed"]}  # the control: a plain sum would follow the larger numbers
    np.testing.assert_allclose(combined(larger, weights), expected, atol=1e-3)


@pytest.mark.filterwarnings("error")  # a mean of nothing
def test_a_term_of_two_samples_counts_and_one_of_fewer_does_not():
    terms = {"two": np.array([3.0, NAN, 5.0]), "one": np.array([NAN, 2.0, NAN]), "none": np.full(3, NAN)}
    found = combined(terms, {"two": 2.0, "one": 1.0, "none": 1.0})
    np.testing.assert_allclose(found, [-2.0, 0.0, 2.0], atol=1e-3)


@pytest.mark.parametrize("kind", [*RELATIVE, AdvantageKind.softmax, AdvantageKind.batch, AdvantageKind.global_std])
def test_whole_numbers_as_rewards_are_not_cut_to_whole_advantages(kind):
    estimate = AdvantageEstimator(AlgorithmOptions(advantage=kind))
    whole, real = np.array([0, 1, 1, 3]), np.array([0.0, 1.0, 1.0, 3.0])
    ((found, _),) = estimate([whole], ["p"])
    ((expected, _),) = AdvantageEstimator(AlgorithmOptions(advantage=kind))([real], ["p"])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(found)) > 1
