"""What functions may be and say beyond TRL: groups, samples that failed, services that are down, rubrics, deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import verifiers

from rewards.options import Per, RewardOptions, RewardTerm
from rewards.registry import RewardError, check_columns, resolve_term
from rewards.rubric import Rubric
from rewards.scoring.scorer import Scorer
from rewards.scoring.scores import ScoreRequest, Scores
from rewards.unavailable import Unavailable

NAN = float("nan")
HERE = "tests.rewards.scoring.test_protocol"


def places(completions: list[str], groups: list[int], **_: Any) -> list[float]:
    """Of each sample in its group, by length; a group that holds "raise" raises."""
    if "raise" in completions:
        raise KeyError("no such thing")
    lengths: dict[int, list[int]] = {}
    for group, completion in zip(groups, completions, strict=True):
        lengths.setdefault(group, []).append(len(completion))
    return [float(sorted(lengths[g]).index(len(c))) for g, c in zip(groups, completions, strict=True)]


def picky(completions: list[str], log_failed: Callable[..., None], **_: Any) -> list[float | None]:
    scores: list[float | None] = [1.0] * len(completions)
    for place, completion in enumerate(completions):
        if completion in ("timeout", "error", "invalid"):
            log_failed(place, completion, "the server said \x1b[31mno")
            scores[place] = None
        elif completion == "contradiction":
            log_failed(place, "error", "no")
        elif completion == "unknown status":
            log_failed(place, "zero", "no")
    return scores


def down(completions: list[str], **_: Any) -> list[float]:
    if any(completion == "down" for completion in completions):
        raise Unavailable("http://judge:8000 has not answered for 60 s")
    if any(completion == "raise" for completion in completions):
        raise KeyError("no such thing")
    return [1.0] * len(completions)


def slow(completions: list[str], **_: Any) -> list[float]:
    import time

    time.sleep(0.6)
    return [1.0] * len(completions)


async def right_answer(completion: str, answer: str, parser: Any) -> float:
    assert parser is None or parser.__class__.__name__ == "XMLParser"
    return float(answer in completion)


def brief(completion: str, state: dict[str, Any], limit: int = 5, **columns: Any) -> float:
    assert state["completion"] == completion
    assert "prompt" in columns
    return float(len(completion) <= limit)


def alone(completion: str, answer: str) -> float:
    if completion == "raise":
        raise KeyError("no such thing")
    return float(answer in completion)


rubric = verifiers.Rubric(
    funcs=[right_answer, brief], weights=[1.0, 0.5], parser=verifiers.XMLParser(fields=["think", "answer"])
)


@pytest.fixture
def scored() -> Iterator[Callable[..., Scores]]:
    scorers = []

    def score(term: RewardTerm, *completions: str, groups: list[int] | None = None, **columns: list[Any]) -> Scores:
        scorers.append(Scorer(RewardOptions(terms={"task": term}, timeout_seconds=0.5)))
        request = ScoreRequest(["p"] * len(completions), list(completions), columns=columns, groups=groups)
        return scorers[-1].score(request)

    yield score
    for scorer in scorers:
        scorer.stop()


def test_a_function_of_groups_gets_whole_groups_and_a_bad_one_costs_itself_alone(scored) -> None:
    term = RewardTerm(f"{HERE}.places", per=Per.group)
    assert scored(term, "aa", "a", "b", "bbb", groups=[7, 7, 9, 9]).total.tolist() == [1.0, 0.0, 0.0, 1.0]
    assert scored(term, "aa", "a", "b").total.tolist() == [2.0, 0.0, 0.0]  # without numbers all are one group
    scores = scored(term, "aa", "a", "raise", "bbb", "c", "cc", groups=[0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(scores.total, [1.0, 0.0, NAN, NAN, 0.0, 1.0])
    assert [(failure.index, failure.kind) for failure in scores.failures] == [(2, "exception"), (3, "exception")]


def test_a_sample_that_the_function_says_has_failed_is_counted_and_is_no_number(scored) -> None:
    scores = scored(RewardTerm(f"{HERE}.picky"), "good", "timeout", "error", "invalid")
    np.testing.assert_array_equal(scores.total, [1.0, NAN, NAN, NAN])
    assert [failure.kind for failure in scores.failures] == ["timeout", "error", "invalid"]
    assert scores.statuses == {"task": ["ok", "timeout", "error", "invalid"]}
    assert scores.failures[0].message == r"the server said \x1b[31mno"


@pytest.mark.parametrize(
    ("completion", "message"),
    [
        ("contradiction", "log_failed was told that sample 0 has the status 'error', and the function returned 1.0"),
        ("unknown status", "status 'zero'; it must be one of timeout, error, invalid"),
    ],
)
def test_what_a_function_says_of_a_failure_must_make_sense(scored, completion: str, message: str) -> None:
    scores = scored(RewardTerm(f"{HERE}.picky"), "good", completion)
    np.testing.assert_array_equal(scores.total, [1.0, NAN])
    assert message in scores.failures[0].message


def test_a_service_that_is_down_is_asked_once_and_costs_every_sample(scored) -> None:
    scores = scored(RewardTerm(f"{HERE}.down"), "a", "down", "b")
    assert np.isnan(scores.total).all()
    assert {failure.kind for failure in scores.failures} == {"unavailable"}
    assert "has not answered for 60 s" in scores.failures[0].message
    assert scores.statuses == {"task": ["error"] * 3}


def test_one_that_goes_down_while_samples_are_tried_alone_costs_the_rest(scored, monkeypatch) -> None:
    asked: list[list[str]] = []

    def call(self: Any, term: str, arguments: dict[str, Any], seconds: float) -> dict[str, Any]:
        from rewards.scoring.process import FunctionRaised, ServiceDown

        asked.append(arguments["completions"])
        if len(asked[-1]) > 1:
            raise FunctionRaised("no such thing")
        if asked[-1] == ["b"]:
            raise ServiceDown("gone")
        return {"values": [1.0], "metrics": [], "malformed": [], "seconds": 0.0}

    monkeypatch.setattr("rewards.scoring.process.ScoringProcess.call", call)
    scores = scored(RewardTerm(f"{HERE}.down"), "a", "b", "c")
    np.testing.assert_array_equal(scores.total, [1.0, NAN, NAN])
    assert asked == [["a", "b", "c"], ["a"], ["b"]]
    assert [failure.kind for failure in scores.failures] == ["unavailable"] * 2


def test_a_term_may_have_a_deadline_of_its_own(scored) -> None:
    assert scored(RewardTerm(f"{HERE}.slow", timeout_seconds=20.0), "a").total.tolist() == [1.0]
    assert [failure.kind for failure in scored(RewardTerm(f"{HERE}.slow"), "a").failures] == ["timeout"]


def test_a_function_of_one_completion_is_called_for_each(scored) -> None:
    scores = scored(RewardTerm(f"{HERE}.alone"), "it is 4", "raise", "no", answer=["4", "4", "4"])
    np.testing.assert_array_equal(scores.total, [1.0, NAN, 0.0])  # verifiers itself would make 0 of the second
    assert scores.failures[0].kind == "exception"


def test_a_rubric_of_verifiers_is_the_weighted_sum_of_its_functions_as_in_the_library(scored) -> None:
    completions, answers = ["4", "it is 4 or so", "none"], ["4", "4", "4"]
    ours = scored(RewardTerm(f"{HERE}.rubric"), *completions, answer=answers).total.tolist()
    assert ours == _by_the_library(completions, answers) == [1.5, 1.0, 0.5]


def test_functions_of_a_rubric_are_criteria_if_they_are_asked_for(scored) -> None:
    term = RewardTerm(f"{HERE}.rubric", criteria={"right_answer": 1.0, "brief": 0.0}, args={"limit": 2})
    scores = scored(term, "4", "it is 4", answer=["4", "4"])
    assert scores.terms["task/right_answer"].tolist() == [1.0, 1.0]
    assert scores.terms["task/brief"].tolist() == [1.0, 0.0]
    assert scores.total.tolist() == [1.0, 1.0]


def test_arguments_of_rubrics_must_be_columns() -> None:
    term = RewardTerm(f"{HERE}.alone")
    check_columns("task", term, ["answer"])
    with pytest.raises(RewardError, match="needs 'answer', and the rows have no such column"):
        check_columns("task", term, ["solution"])
    check_columns("task", RewardTerm(f"{HERE}.rubric"), ["answer"])  # `parser` is filled in, `limit` has a default
    assert resolve_term("task", term).__class__.__name__ == "Rubric"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (alone, "missing 1 required positional argument: 'answer'"),
        (lambda completion: "0.5", "returned '0.5'; a number is expected"),
        (lambda completion: None, "returned None; a number is expected"),
        (lambda completion, state: state["answer"], "'answer'"),
    ],
)
def test_a_rubric_makes_no_number_of_what_is_none(function: Callable[..., Any], message: str) -> None:
    """As little of a text as of an answer that no column holds, which verifiers takes for an empty one."""
    with pytest.raises((TypeError, KeyError), match=message):
        asyncio.run(Rubric(function)(["p"], ["4"], {}, {}))


def _by_the_library(completions: list[str], answers: list[str]) -> list[float]:
    async def score() -> list[float]:
        found = []
        for completion, answer in zip(completions, answers, strict=True):
            state: dict[str, Any] = {"timing": {"scoring_ms": 0.0, "total_ms": 0.0}, "completion": completion}
            one = await rubric.score_rollout(prompt="p", completion=completion, answer=answer, state=state)
            found.append(one.reward)
        return found

    return asyncio.run(score())


def test_a_function_of_one_completion_compares_no_group() -> None:
    with pytest.raises(RewardError, match=r"per=group: .* is a function of one completion"):
        resolve_term("task", RewardTerm(f"{HERE}.alone", per=Per.group))
