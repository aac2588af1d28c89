"""What the scorer asks of its process, and what it makes of the answers: a process that answers from a script."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from rewards.options import RewardOptions, RewardTerm
from rewards.scoring import scorer
from rewards.scoring.process import Crashed, DeadlinePassed, FunctionRaised
from rewards.scoring.scorer import Scorer
from rewards.scoring.scores import Failure, Logged, ScoreRequest, Scores
from rewards.scoring.term_call import LOST_LIMIT

NAN = float("nan")


@dataclass
class Script:
    """Stands for the process. Every call takes `seconds`."""

    answer: Callable[[str, list[Any]], list[float | None]]
    """(term, completions) -> values, or raises."""
    seconds: float = 1.0
    metric: Callable[[list[Any]], list[tuple[str, float]]] = lambda completions: []
    malformed: list[tuple[int, str, str]] = field(default_factory=list)
    """(place in the call, label, reason)."""
    calls: list[tuple[str, list[Any], float]] = field(default_factory=list)
    """(term, completions, deadline) of each."""

    def call(self, term: str, arguments: dict[str, Any], seconds: float) -> dict[str, Any]:
        completions = arguments["completions"]
        self.calls.append((term, completions, seconds))
        values = self.answer(term, completions)
        told = {"metrics": self.metric(completions), "malformed": self.malformed}
        return {"values": values, "seconds": self.seconds, **told}


@pytest.fixture
def scripted(monkeypatch):
    """A scorer of terms, with their weights, whose process is a script."""

    def make(script: Script, **weights: float) -> Scorer:
        monkeypatch.setattr(scorer, "ScoringProcess", lambda options, printed: script)
        terms = {name: RewardTerm(function="math", weight=weight) for name, weight in weights.items()}
        return Scorer(RewardOptions(terms=terms, timeout_seconds=1.0))

    return make


def request_of(*completions: Any) -> ScoreRequest:
    return ScoreRequest(prompts=["p"] * len(completions), completions=list(completions))


def test_a_batch_has_one_deadline_and_twice_what_its_samples_took_before(scripted):
    script = Script(lambda term, completions: [0.0] * len(completions), seconds=2.0)
    scores = scripted(script, task=1.0)
    for count in (4, 2, 1, 10):
        scores.score(request_of(*range(count)))
    # 2 s for 4 samples, then 4 s for 6, then 6 s for 7
    assert [seconds for _, _, seconds in script.calls] == pytest.approx(
        [1.0, 1 + 2 * 2 * 2 / 4, 1.0, 1 + 2 * 10 * 6 / 7]
    )


def test_a_malformed_sample_keeps_its_reward_and_is_told_with_its_label(scripted):
    script = Script(lambda term, completions: [1.0, 0.0], malformed=[(1, "boxnet", "KeyError: 0")])
    scores = scripted(script, task=1.0).score(request_of("good", "bad"))
    np.testing.assert_array_equal(scores.total, [1.0, 0.0])
    assert scores.failures == [Failure(1, "task", "malformed", "KeyError: 0", "bad", "boxnet")]


def test_every_term_has_its_own_pace(scripted):
    script = Script(lambda term, completions: [0.0] * len(completions))
    scores = scripted(script, slow=1.0, quick=1.0)
    scores.score(request_of("a", "b"))
    script.seconds = 0.0
    scores.score(request_of("a", "b"))
    assert [(term, seconds) for term, _, seconds in script.calls] == [
        ("slow", 1.0),
        ("quick", 1.0),
        ("slow", 3.0),
        ("quick", 3.0),
    ]


def test_a_term_that_applies_is_enough_whichever_comes_last(scripted):
    answers = {"first": [2.0, None, None], "second": [None, 3.0, None]}
    script = Script(lambda term, completions: answers[term])
    scores = scripted(script, first=1.0, second=0.5).score(request_of("a", "b", "c"))
    np.testing.assert_array_equal(scores.total, [2.0, 1.5, NAN])
    (failure,) = scores.failures
    assert (failure.index, failure.kind, failure.term) == (2, "not_applicable", "first, second")


def test_failures_of_every_term_are_kept(scripted):
    answers = {"first": [NAN, 1.0], "second": [1.0, float("inf")]}
    scores = scripted(Script(lambda term, completions: answers[term]), first=1.0, second=1.0)
    found = scores.score(request_of("a", "b"))
    assert [(f.index, f.term, f.kind, f.completion) for f in found.failures] == [
        (0, "first", "not_finite", "a"),
        (1, "second", "not_finite", "b"),
    ]
    assert np.isnan(found.total).all()


def test_metrics_are_means_over_the_calls_that_answered(scripted):
    def one_at_a_time(term: str, completions: list[Any]) -> list[float | None]:
        if len(completions) > 1:
            raise FunctionRaised("not a batch")
        return [float(completions[0])]

    script = Script(one_at_a_time, metric=lambda completions: [("size", 2.0 * completions[0]), ("one", 1.0)])
    scores = scripted(script, task=1.0).score(request_of(1, 2, 6))
    assert {name: each.mean for name, each in scores.metrics.items()} == {"size": 6.0, "one": 1.0}
    assert scores.total.tolist() == [1, 2, 6]
    assert scores.failures == []
    assert Scores(np.zeros(1), {}, []).metrics == {}


def test_a_call_weighs_as_many_samples_as_it_speaks_of(scripted):
    """However often it passes a value; and values that are no number are counted, not averaged."""
    passed = {3: [("a", 1.0)], 1: [("a", 5.0), ("a", 7.0), ("b", NAN)]}
    script = Script(lambda term, ones: [0.0] * len(ones), metric=lambda ones: passed[len(ones)])
    scorer = scripted(script, task=1.0)
    parts = [scorer.score(request_of(*range(count))).metrics for count in passed]
    joined = Logged.joined(parts)
    assert joined["a"].mean == pytest.approx((3 * 1.0 + 1 * 6.0) / 4)
    assert (joined["b"].mean, joined["b"].not_finite) == (None, 1)
    assert parts[0]["a"].mean == 1.0  # joining leaves the parts alone


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (FunctionRaised("KeyError: 'x'"), "exception", "KeyError: 'x'"),
        (FunctionRaised(), "exception", "FunctionRaised"),
        (DeadlinePassed("no answer"), "timeout", "no answer"),
        (Crashed("exited"), "crash", "exited"),
    ],
)
def test_a_failure_says_what_happened(scripted, error, kind, message):
    def answer(term: str, completions: list[Any]) -> list[float | None]:
        raise error

    (failure,) = scripted(Script(answer), task=1.0).score(request_of("a")).failures
    assert (failure.kind, failure.message) == (kind, message)


def test_only_lost_processes_count_towards_the_limit(scripted):
    """What raises is quick, so every sample is tried."""

    def answer(term: str, completions: list[Any]) -> list[float | None]:
        raise FunctionRaised("no") if completions[0] != "hang" else DeadlinePassed("late")

    script = Script(answer)
    completions = ["raise"] * 40 + ["hang"] * (LOST_LIMIT - 1) + ["raise", "hang", "raise", "hang"]
    found = scripted(script, task=1.0).score(request_of(*completions))
    kinds = [failure.kind for failure in found.failures]
    lost = ["timeout"] * (LOST_LIMIT - 1)
    assert kinds == ["exception"] * 40 + lost + ["exception", "timeout", "not_tried", "not_tried"]
    assert f"after {LOST_LIMIT} samples" in found.failures[-1].message
    assert len(script.calls) == 1 + len(completions) - 2  # the batch, and all but the last two


@pytest.mark.parametrize(("value", "weight"), [(1e300, 1.0), (-1e18, 1.0), (1e10, -1e10), (1.0, 1e300)])
def test_a_reward_that_no_loss_can_hold_is_none(scripted, value, weight):
    """Its square, which a deviation is, or the number itself is infinite in fp32; the run ended with somebody else's
    error, or went on."""
    script = Script(lambda term, completions: [value if completion == "bad" else 1e-9 for completion in completions])
    scores = scripted(script, task=weight).score(request_of("good", "bad"))
    assert np.isnan(scores.total).tolist() == [abs(weight) > 1e29, True]
    assert {(failure.index, failure.kind) for failure in scores.failures} >= {(1, "not_finite")}
    assert all("a finite number below 1e+18" in failure.message for failure in scores.failures)
