"""What terms come to, by hand: clips, gates, weights that move, and whose failure costs the sample."""

from __future__ import annotations

import numpy as np
import pytest

from rewards.options import RewardOptions, RewardTerm
from rewards.registry import RewardError
from rewards.scoring.combination import combine
from rewards.scoring.scorer import Scorer
from rewards.scoring.scores import Failure, Scores, TermScores

NAN = float("nan")


def combined(
    terms: dict[str, RewardTerm], values: dict[str, list[float]], update: int | None = None, failed: str = ""
) -> Scores:
    """`failed`: name of a term that failed on the first sample."""
    failures = [Failure(0, failed, "exception", "no", "text")] if failed else []
    found = TermScores({name: np.array(each) for name, each in values.items()}, failures)
    return combine(found, RewardOptions(terms=terms), lambda index: "text", update)


def test_a_clip_limits_what_is_summed_and_not_what_is_reported() -> None:
    terms = {"a": RewardTerm("math", weight=2.0, clip=(-1.0, 1.0)), "b": RewardTerm("math")}
    scores = combined(terms, {"a": [3.0, -2.0, 0.5, NAN], "b": [1.0, 1.0, 1.0, 1.0]})
    assert scores.total.tolist() == [3.0, -1.0, 2.0, 1.0]
    np.testing.assert_array_equal(scores.terms["a"], [3.0, -2.0, 0.5, NAN])
    np.testing.assert_array_equal(scores.paid["a"], [1.0, -1.0, 0.5, NAN])


def test_a_gate_below_its_number_takes_the_pay_and_not_the_sample() -> None:
    terms = {"right": RewardTerm("math", requires={"format": 1.0}), "format": RewardTerm("math", weight=0.1)}
    scores = combined(terms, {"right": [1.0, 1.0, -1.0, 1.0], "format": [1.0, 0.5, 0.5, NAN]})
    assert scores.total == pytest.approx([1.1, 0.05, 0.05, 1.0])  # the last has no format, which holds nothing back
    assert scores.paid["right"].tolist() == [1.0, 0.0, 0.0, 1.0]


def test_a_gate_that_failed_costs_the_sample_even_if_it_is_only_a_measure() -> None:
    measure = {"format": RewardTerm("math", weight=0.0)}
    values = {"right": [1.0, 1.0], "format": [NAN, 1.0]}
    gated = {"right": RewardTerm("math", requires={"format": 1.0}), **measure}
    np.testing.assert_array_equal(combined(gated, values, failed="format").total, [NAN, 1.0])
    free = {"right": RewardTerm("math"), **measure}
    assert combined(free, values, failed="format").total.tolist() == [1.0, 1.0]


def test_a_criterion_may_be_a_gate() -> None:
    terms = {
        "right": RewardTerm("math", requires={"judge/polite": 0.5}),
        "judge": RewardTerm("math", criteria={"polite": 0.0, "brief": 1.0}),
    }
    scores = combined(terms, {"right": [1.0, 1.0], "judge/polite": [0.4, 0.5], "judge/brief": [0.0, 0.0]})
    assert scores.total.tolist() == [0.0, 1.0]


@pytest.mark.parametrize(("update", "total"), [(0, 2.0), (5, 1.5), (10, 1.0), (1000, 1.0), (None, 1.0)])
def test_a_weight_moves_in_a_straight_line_and_evaluations_have_the_last(update: int | None, total: float) -> None:
    terms = {"a": RewardTerm("math", weight=1.0, start_weight=2.0, weight_updates=10)}
    assert combined(terms, {"a": [1.0]}, update).total.tolist() == [total]


def test_a_term_that_fades_out_is_a_measure_afterwards() -> None:
    terms = {
        "shaped": RewardTerm("math", weight=0.0, start_weight=1.0, weight_updates=2),
        "right": RewardTerm("math", weight=1.0),
    }
    values = {"shaped": [NAN, 0.5], "right": [1.0, 1.0]}
    np.testing.assert_array_equal(combined(terms, values, 1, failed="shaped").total, [NAN, 1.25])
    assert combined(terms, values, 2, failed="shaped").total.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"a": RewardTerm("math", requires={"b": 1.0})}, "a.requires.b: no other term is reported so; .* are: none"),
        ({"a": RewardTerm("math", requires={"a": 1.0})}, "a.requires.a: no other term"),
        (
            {
                "a": RewardTerm("math", requires={"j": 1.0}),
                "j": RewardTerm("math", criteria={"x": 1.0}),
            },
            "requires.j: no other term is reported so; the others are: j/x",
        ),
        ({"a": RewardTerm("math", requires={"b": NAN}), "b": RewardTerm("math")}, "requires.b is nan"),
        ({"a": RewardTerm("math", clip=(1.0, 0.0))}, r"clip is \[1.0, 0.0\]; it must be two numbers, the lower first"),
        ({"a": RewardTerm("math", start_weight=1.0)}, "start_weight and weight_updates belong together"),
        ({"a": RewardTerm("math", weight_updates=0, start_weight=1.0)}, "weight_updates is 0"),
        ({"a": RewardTerm("math", timeout_seconds=0.0)}, "timeout_seconds is 0.0; it must be positive"),
        ({"a": RewardTerm("math", weight=0.0, start_weight=0.0, weight_updates=3)}, "every term .* has weight 0"),
        ({"a": RewardTerm("math", weight=0.0, start_weight=1.0, weight_updates=3)}, "weight 0 in evaluations"),
        ({"a": RewardTerm("math", start_weight=0.0, weight_updates=3)}, "weight 0 at update 0"),
        ({"a": RewardTerm("math", start_weight=-1.0, weight_updates=4)}, "weight 0 at update 2"),
    ],
)
def test_what_cannot_be_is_refused(terms: dict[str, RewardTerm], message: str) -> None:
    with pytest.raises(RewardError, match=message):
        Scorer(RewardOptions(terms=terms))
