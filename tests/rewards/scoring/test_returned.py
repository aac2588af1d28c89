"""What functions return is a number a sample, or criteria by name; anything else is no score."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas
import pytest
import torch

from configs.schema import Config
from rewards.options import RewardOptions, RewardTerm
from rewards.registry import RewardError
from rewards.scoring import scorer
from rewards.scoring.calling import Told, call
from rewards.scoring.process import FunctionRaised
from rewards.scoring.returned import read
from rewards.scoring.scorer import Scorer
from rewards.scoring.scores import ScoreRequest, Scores
from rl.algorithm.advantages import normalised
from rl.compatibility.run import run_problems
from rl.run.failures import failure_notes
from rl.run.solved import solved_of

NAN = float("nan")
PLAIN = RewardTerm(function="math")
TWO = RewardTerm(function="math", weight=2.0, criteria={"accuracy": 1.0, "format": 0.25})


@pytest.mark.parametrize(
    "result",
    [
        [1, None, True],
        (1.0, None, 1),
        iter([1, None, 1]),
        {"a": 1, "b": None, "c": 1}.values(),
        np.array([1, None, 1], dtype=object),
    ],
)
def test_one_number_a_sample(result: Any) -> None:
    assert read(result, PLAIN) == {"values": [1.0, None, 1.0]}


def test_arrays_and_series_are_their_values() -> None:
    for result in (np.array([0.5, 2]), torch.tensor([0.5, 2]), pandas.Series([0.5, 2], index=[7, 8])):
        assert read(result, PLAIN) == {"values": [0.5, 2.0]}


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({0: 0.5, 1: 0.25}, "returned scores 0, 1 by name: give their weights"),
        ({"accuracy": [1.0], "format": [0.0]}, r"as reward.terms.TERM.criteria.accuracy=1"),
        ({}, "returned no scores by name"),
        (pandas.DataFrame({0: [0.5], 1: [0.25]}), "returned scores 0, 1 by name"),
        ([{"accuracy": 1.0}], "returned scores accuracy by name for a sample"),
        ({0.0, 1.0}, "returned a set, which has no order"),
        ({3: 0.5}.keys(), "returned a set"),
        (b"\x00\x01", "a list with one number a sample is expected"),
        ("11", "a list with one number a sample is expected"),
        (1.0, "returned 1.0; a list with one number"),
        (None, "returned None; a list"),
        (["1.0"], "returned '1.0' for a sample; a number or None"),
        ([[1.0]], "float"),
        ([object()], "float"),
    ],
)
def test_anything_else_is_no_score(result: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        read(result, PLAIN)


@pytest.mark.parametrize(
    "result",
    [
        {"format": [0, 1], "accuracy": [1, None]},
        [{"format": 0, "accuracy": 1}, {"accuracy": None, "format": 1}],
        pandas.DataFrame({"format": [0, 1], "accuracy": pandas.Series([1, None], dtype=object)}),
    ],
)
def test_criteria_are_columns_or_a_mapping_a_sample(result: Any) -> None:
    assert read(result, TWO) == {"criteria": {"accuracy": [1.0, None], "format": [0.0, 1.0]}}


def test_a_sample_without_criteria_has_none() -> None:
    assert read([None], TWO) == {"criteria": {"accuracy": [None], "format": [None]}}


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"accuracy": [1.0]}, "returned scores accuracy, and its term has the criteria accuracy, format"),
        ([{"accuracy": 1.0, "format": 0.0, "style": 1.0}], "returned scores accuracy, format, style, and"),
        ([1.0], "returned 1.0 for a sample, and its term has the criteria accuracy, format"),
        ({"accuracy": [1.0, 0.0], "format": [1.0]}, "different numbers of values: {'accuracy': 2, 'format': 1}"),
        ([{"accuracy": "1", "format": 0.0}], "returned '1' for 'accuracy' for a sample"),
    ],
)
def test_criteria_that_differ_from_the_terms_are_named(result: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        read(result, TWO)


Answer = Callable[[list[Any]], Any]


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scores]:
    """Scores of completions by functions of this process: what a child answers, without one."""

    def score(*completions: Any, terms: dict[str, tuple[RewardTerm, Answer]]) -> Scores:
        class Here:
            def call(self, name: str, arguments: dict[str, Any], seconds: float) -> dict[str, Any]:
                try:
                    term, answer = terms[name]
                    values = read(answer(arguments["completions"]), term)
                except TypeError as error:
                    raise FunctionRaised(str(error)) from error
                unread = [(i, "task", "why") for i, text in enumerate(arguments["completions"]) if text == "malformed"]
                return {**values, "metrics": [], "malformed": unread, "seconds": 0.0}

        monkeypatch.setattr(scorer, "ScoringProcess", lambda options, printed: Here())
        options = RewardOptions(terms={name: term for name, (term, _) in terms.items()})
        return Scorer(options).score(ScoreRequest(["p"] * len(completions), list(completions)))

    return score


@pytest.mark.parametrize("constant", [[1.0], [1.0, 1.0]])
def test_as_many_values_whatever_the_batch_are_no_scores(scored: Callable[..., Scores], constant: list[float]) -> None:
    """`return [1.0]` is right for every sample alone, and says nothing of any."""
    found = scored(*range(64), terms={"task": (PLAIN, lambda completions: constant)})
    assert np.isnan(found.total).all()
    assert [(failure.index, failure.kind) for failure in found.failures] == [(i, "wrong_length") for i in range(64)]


def test_the_message_says_that_it_is_not_sample_by_sample(scored: Callable[..., Scores]) -> None:
    found = scored("a", "b", "c", terms={"task": (PLAIN, lambda completions: [1.0])})
    assert "returned 1 values for 3 samples in one call, and 3 for the same samples one at a time" in (
        found.failures[0].message
    )


def test_samples_that_account_for_a_wrong_length_are_at_fault_alone(scored: Callable[..., Scores]) -> None:
    def repeats(completions: list[int]) -> list[float]:
        return [1.0 for count in completions for _ in range(count)]

    found = scored(1, 0, 1, 3, terms={"task": (PLAIN, repeats)})
    np.testing.assert_array_equal(found.total, [1, NAN, 1, NAN])
    assert [(failure.index, failure.kind) for failure in found.failures] == [(1, "wrong_length"), (3, "wrong_length")]


def test_a_malformed_sample_has_a_wrong_length_too(scored: Callable[..., Scores]) -> None:
    """It is no sample to which no term applies, and its score is not there, so its status is not `ok`."""
    found = scored("a", "malformed", terms={"task": (PLAIN, lambda completions: [1.0])})
    kinds = {(failure.index, failure.kind) for failure in found.failures}
    assert kinds == {(0, "wrong_length"), (1, "wrong_length"), (1, "malformed")}
    assert found.statuses == {"task": ["invalid", "invalid"]}


def test_a_malformed_sample_without_a_score_is_not_ok(scored: Callable[..., Scores]) -> None:
    terms = {"task": (PLAIN, lambda completions: [1.0, None]), "other": (PLAIN, lambda completions: [1.0, 1.0])}
    assert scored("a", "malformed", terms=terms).statuses["task"] == ["ok", "not_applicable"]


def test_criteria_are_terms_of_their_own(scored: Callable[..., Scores]) -> None:
    def judge(completions: list[tuple]) -> Any:
        return {"accuracy": [a for a, _ in completions], "format": [b for _, b in completions]}

    found = scored((1, 0), (0, 1), (None, 1), (None, None), terms={"quality": (TWO, judge)})
    assert found.terms.keys() == {"quality/accuracy", "quality/format"}
    np.testing.assert_array_equal(found.terms["quality/accuracy"], [1, 0, NAN, NAN])
    np.testing.assert_array_equal(found.total, [2.0, 0.5, 0.5, NAN])
    (failure,) = found.failures
    assert (failure.kind, failure.term) == ("not_applicable", "quality/accuracy, quality/format")

    options = RewardOptions(terms={"quality": TWO}, solved_at=1.0, solved_by="quality/accuracy")
    assert options.weights() == {"quality/accuracy": 2.0, "quality/format": 0.5}
    groups = {name: values[None] for name, values in found.terms.items()}
    np.testing.assert_array_equal(solved_of(found.total[None], groups, options), [[1, 0, NAN, NAN]])
    assert np.isfinite(normalised(found.total[None], groups, options.weights())[0, :3]).all()
    assert not list(failure_notes("update 3", [], options, 0, 4))


def test_a_criterion_that_is_not_finite_is_named_and_costs_the_sample_if_it_is_paid(
    scored: Callable[..., Scores],
) -> None:
    term = RewardTerm(function="math", criteria={"paid": 1.0, "measured": 0.0})

    def judge(completions: list[tuple]) -> Any:
        return [{"paid": paid, "measured": measured} for paid, measured in completions]

    found = scored((NAN, 1), (1, NAN), (1, 1), terms={"task": (term, judge)})
    np.testing.assert_array_equal(found.total, [NAN, 1, 1])
    assert [(f.index, f.term, f.kind) for f in found.failures] == [
        (0, "task/paid", "not_finite"),
        (1, "task/measured", "not_finite"),
    ]
    options = RewardOptions(terms={"task": term})
    paid, measured = failure_notes("update 3", found.failures, options, 1, 3)
    assert paid.startswith("update 3: 1 of 3 samples could not be scored")
    assert measured.startswith("update 3: the measure task/measured (weight 0)")


def test_a_function_that_fails_costs_the_sample_all_its_criteria(scored: Callable[..., Scores]) -> None:
    def judge(completions: list[int]) -> Any:
        return [{"accuracy": 1, "format": 1} if c else "bad" for c in completions]

    found = scored(1, 0, terms={"quality": (TWO, judge), "size": (PLAIN, lambda completions: [1.0] * len(completions))})
    np.testing.assert_array_equal(found.total, [3.5, NAN])
    assert [(f.index, f.term, f.kind) for f in found.failures] == [(1, "quality", "exception")]


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"a": RewardTerm("math", criteria={"b": NAN})}, "reward.terms.a.criteria.b is nan"),
        ({"a": RewardTerm("math", criteria={"b": 0.0})}, "only a measure"),
        ({"a": RewardTerm("math", criteria={"b": 1.0}), "a/b": RewardTerm("math")}, "name TERM/CRITERION"),
    ],
)
def test_criteria_that_cannot_be_are_refused(terms: dict[str, RewardTerm], message: str) -> None:
    with pytest.raises(RewardError, match=message):
        Scorer(RewardOptions(terms=terms))


def test_solved_by_may_name_a_criterion_and_no_term_of_criteria() -> None:
    def said(solved_by: str) -> list[str]:
        config = Config(reward=RewardOptions(terms={"quality": TWO}, solved_at=1.0, solved_by=solved_by))
        return [problem for problem in run_problems(config) if "solved_by" in problem]

    assert said("quality/accuracy") == []
    assert said("quality") == ["reward.solved_by=quality is no term; there are quality/accuracy, quality/format"]


MESSAGES = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]


@pytest.mark.parametrize(
    ("conversational", "prompts"),
    [(True, [MESSAGES, [{"role": "user", "content": "text"}]]), (False, ["system: s\n\nuser: u", "text"])],
)
def test_prompts_are_messages_or_text_as_the_function_wants_them(conversational: bool, prompts: list) -> None:
    seen: list[Any] = []

    def function(prompts: list, **_: Any) -> list[float]:
        seen.extend(prompts)
        return [0.0, 0.0]

    arguments = {
        "prompts": [MESSAGES, "text"],
        "completions": ["a", "b"],
        "completion_ids": None,
        "columns": {},
        "update": None,
    }
    call(function, RewardTerm("math", conversational=conversational), arguments, Told(samples=2))
    assert seen == prompts
