"""Advantages against numbers worked out by hand, and the properties that define them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from configs.algorithm_options import AdvantageKind, AlgorithmOptions, TermScale
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
    ranks,
)
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


def test_sums_of_normalised_terms_are_of_each_group_by_itself_without_samples_that_are_lost():
    rewards = np.array([[0.0, 1.0, NAN], [5.0, 5.0, 5.0]])
    terms = {"a": np.array([[0.0, 1.0, 3.0], [4.0, 6.0, 8.0]]), "b": np.array([[2.0, 2.0, 2.0], [0.0, 0.0, 3.0]])}
    found = normalised(rewards, terms, {"a": 1.0, "b": 2.0})
    first = np.array([-1.0, 1.0])  # what `a` says of the third, whose reward is not known, is no part of it
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


def test_ranks_share_places_and_do_not_look_at_distances() -> None:
    np.testing.assert_allclose(ranks(np.array([3.0, 1.0, NAN, 1000.0])), [0.0, -0.5, NAN, 0.5])
    np.testing.assert_allclose(ranks(np.array([2.0, 2.0, 5.0, 9.0])), [-1 / 3, -1 / 3, 1 / 6, 0.5])
    np.testing.assert_allclose(ranks(np.full(4, 7.0)), 0.0)
    terms = {"a": np.array([0.0, 1.0, 2.0]), "b": np.array([1e6, 0.0, NAN])}
    np.testing.assert_allclose(combined(terms, {"a": 1.0, "b": 0.5}, TermScale.rank), [-0.25, -0.25, 0.5])


def test_gdpo_is_normalised_terms_compared_over_the_update() -> None:
    """arXiv 2601.05242: z-scores of each reward in its group, their sum, and its mean and deviation over the batch."""
    right, brief = np.array([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]), np.array([[3.0, 2.0, 7.0], [1.0, 1.0, 1.0]])
    sums = normalised(right + brief, {"right": right, "brief": brief}, {"right": 1.0, "brief": 0.5})
    found = AdvantageEstimator(algorithm_options("gdpo"))(list(sums), ["p", "q"])

    def standard(values: np.ndarray) -> np.ndarray:
        return (values - values.mean()) / (values.std() + 1e-4)

    by_hand = np.stack([standard(right[0]) + 0.5 * standard(brief[0]), standard(right[1]) + 0.5 * standard(brief[1])])
    np.testing.assert_allclose(np.stack([advantage for advantage, _ in found]), standard(by_hand), rtol=1e-5, atol=1e-6)
