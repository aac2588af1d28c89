"""Agreement with labels against enumeration, and intervals against how often they hold the truth."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import norm, spearmanr

from rl.run.agreement import agreement

NAN = float("nan")


def test_pairs_of_a_prompt_are_counted_as_they_are_written_out() -> None:
    scores = np.array([0.1, 0.9, 0.5, 0.5, 0.2, NAN, 0.0])
    labels = np.array([1.0, 2.0, 1.0, 2.0, 2.0, 1.0, NAN])
    groups = np.array([7, 7, 7, 3, 3, 3, 3])
    found = agreement(scores, labels, groups)
    assert found is not None
    known = [i for i in range(7) if not np.isnan(scores[i] + labels[i])]
    pairs = [(i, j) for i, j in combinations(known, 2) if groups[i] == groups[j] and labels[i] != labels[j]]
    right = [float((scores[i] - scores[j]) * (labels[i] - labels[j]) > 0) for i, j in pairs]
    assert (found.rows, found.pairs, found.tied, found.within_prompts) == (5, 2, 0, True)
    assert found.accuracy == np.mean(right) == 1.0
    assert found.spearman == pytest.approx(spearmanr(scores[known], labels[known]).statistic)


def test_without_two_rows_of_a_prompt_all_rows_are_compared_and_equal_scores_count_half() -> None:
    scores, labels = np.array([1.0, 1.0, 0.0, 3.0]), np.array([1.0, 2.0, 3.0, 4.0])
    found = agreement(scores, labels, np.arange(4))
    assert found is not None
    assert (found.pairs, found.tied, found.within_prompts) == (6, 1, False)
    assert found.accuracy == pytest.approx((3 + 0.5) / 6)


def test_nothing_is_said_where_nothing_differs() -> None:
    groups = np.arange(4)
    assert agreement(np.full(4, 2.0), np.arange(4.0), groups) is None
    assert agreement(np.arange(4.0), np.array([1.0, NAN, NAN, 2.0]), groups) is None


def test_intervals_are_the_same_again_and_hold_the_truth_about_as_often_as_they_say(monkeypatch) -> None:
    monkeypatch.setattr("rl.run.agreement.RESAMPLES", 100)
    generator = np.random.default_rng(3)
    correlation, held = 0.6, np.zeros(2)
    truth = (
        6 / np.pi * np.arcsin(correlation / 2),  # Spearman's of two normal variables
        0.5 + np.arcsin(correlation) / np.pi,  # pairs in the same order
    )
    for _ in range(40):
        label, other = generator.normal(size=(2, 80))
        score = correlation * label + np.sqrt(1 - correlation**2) * other
        found = agreement(score, label, np.arange(80))
        assert found is not None
        assert found.spearman_interval is not None
        assert found.accuracy_interval is not None
        for place, (low, high) in enumerate([found.spearman_interval, found.accuracy_interval]):
            held[place] += low <= truth[place] <= high
    assert found == agreement(score, label, np.arange(80))
    least = 40 * 0.95 - norm.ppf(0.999) * np.sqrt(40 * 0.95 * 0.05)  # what 95 % falls below once in a thousand times
    assert (held >= least - 1).all(), held


def test_copies_of_a_row_under_its_prompt_make_no_interval_narrower(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of labels that a prompt's rows share there are no pairs within prompts, and rows are no independent draws."""
    monkeypatch.setattr("rl.run.agreement.RESAMPLES", 10)
    generator = np.random.default_rng(0)
    labels = generator.normal(size=30)
    scores = labels + generator.normal(size=30)
    once = agreement(scores, labels, np.arange(30))
    copied = agreement(*(np.repeat(each, 5) for each in (scores, labels, np.arange(30))))
    assert once is not None
    assert copied is not None
    assert not copied.within_prompts
    assert copied.accuracy == pytest.approx(once.accuracy)
    assert copied.accuracy_interval == pytest.approx(once.accuracy_interval)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_few_pairs_that_are_all_right_or_wrong_are_no_certainty(monkeypatch: pytest.MonkeyPatch, sign: float) -> None:
    monkeypatch.setattr("rl.run.agreement.RESAMPLES", 10)
    labels = np.array([0.0, 1.0] * 4)
    found = agreement(sign * labels, labels, np.repeat(np.arange(4), 2))
    assert found is not None
    assert found.accuracy_interval is not None
    low, high = found.accuracy_interval
    assert high - low == pytest.approx(1 - 0.025**0.25)  # Clopper and Pearson's, of four prompts
    assert low <= found.accuracy <= high
    assert found.spearman_interval is found.kendall_interval is None  # every resample says the same
