"""What lies between us and a real judge goes wrong: every outcome is counted by its name, and none is a number."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rewards.judge.server import Server
from rewards.options import RewardOptions, RewardTerm
from rewards.scoring.scorer import Scorer
from rewards.scoring.scores import ScoreRequest, Scores
from tests.rewards.judge.conftest import SERVED_AS
from tests.rewards.remote.injector import Injector

pytestmark = [pytest.mark.judge, pytest.mark.timeout(400)]
PROMPTS = ["What is 2+2?"] * 4
ANSWERS = ["4", "5", "four", "I do not know"]


class Judged:
    """A scorer as runs have them, in front of it the injector."""

    def __init__(self, server: Server, injector: Injector, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.key = server.served().key
        monkeypatch.setenv("OPENAI_API_KEY", self.key)
        self._folder, self._url = folder, injector.url
        self.scorers: list[Scorer] = []

    def __call__(self, **args: Any) -> Scores:
        given = {
            "url": f"{self._url}/v1",
            "model": SERVED_AS,
            "constrained": True,
            "concurrency": 1,
            "records": str(self._folder / f"{len(self.scorers)}"),
            **args,
        }
        term = RewardTerm("judge", args=given, timeout_seconds=300.0)
        scorer = Scorer(RewardOptions({"judge": term}), self._folder / "printed.txt")
        self.scorers.append(scorer)
        return scorer.score(ScoreRequest(PROMPTS, ANSWERS))

    def kept(self) -> str:
        """Everything that was written."""
        return "".join(file.read_text() for file in self._folder.rglob("*") if file.is_file())


@pytest.fixture
def judged(server: Server, injector: Injector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Judged]:
    judged = Judged(server, injector, monkeypatch, tmp_path)
    yield judged
    for scorer in judged.scorers:
        scorer.stop()
    assert judged.key not in judged.kept()


def test_what_may_pass_changes_no_verdict(judged: Judged, injector: Injector) -> None:
    undisturbed = judged()
    assert undisturbed.failures == []
    injector.faults.extend(["429", "500", "half", "model:another", "reset", "429:1", "503", "slow:3"])
    disturbed = judged(request_seconds=2.5)
    assert disturbed.failures == []
    assert disturbed.total.tolist() == undisturbed.total.tolist()
    assert (disturbed.metrics["judge/retries"].mean or 0) >= 8  # more where the machine is busy
    assert undisturbed.metrics["judge/retries"].mean == 0


def test_another_models_answers_are_never_taken(judged: Judged, injector: Injector) -> None:
    injector.always = "model:cheaper"
    scores = judged()
    assert [failure.kind for failure in scores.failures] == ["unavailable"] * 4
    assert f"of the model 'cheaper', and '{SERVED_AS}' was asked" in scores.failures[0].message
    assert str(scores.total.tolist()) == "[nan, nan, nan, nan]"


@pytest.mark.parametrize(
    ("fault", "said"), [("429", "429"), ("500", "500"), ("half", "no JSON"), ("reset", "connection")]
)
def test_a_judge_in_trouble_is_waited_for_and_then_named(
    judged: Judged, injector: Injector, fault: str, said: str
) -> None:
    injector.always = fault
    began = time.monotonic()
    scores = judged(patience_seconds=1.5)
    assert 1 < time.monotonic() - began < 30
    assert [failure.kind for failure in scores.failures] == ["unavailable"] * 4
    assert f"{injector.url}/v1/chat/completions is unavailable" in scores.failures[0].message
    assert said in scores.failures[0].message
    assert str(scores.total.tolist()) == "[nan, nan, nan, nan]"


def test_a_slow_judge_is_a_timeout_of_its_own(judged: Judged, injector: Injector) -> None:
    injector.always = "slow:5"
    scores = judged(patience_seconds=1.5, request_seconds=0.5)
    assert "no answer within request_seconds=0.5" in scores.failures[0].message
    assert {failure.kind for failure in scores.failures} == {"unavailable"}


def test_a_wrong_key_is_said_at_once(judged: Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    scores = judged()
    assert {failure.kind for failure in scores.failures} == {"unavailable"}
    assert "status 401" in scores.failures[0].message
    assert "sk-wrong" not in judged.kept() + scores.failures[0].message


def test_what_was_answered_before_is_not_asked_again(judged: Judged, injector: Injector, tmp_path: Path) -> None:
    """A run that goes on reads the verdicts, and needs no judge for them."""
    records = str(tmp_path / "run")
    first = judged(records=records)
    lines = [json.loads(line) for file in (tmp_path / "run").iterdir() for line in file.read_text().splitlines()]
    assert len(lines) == 4
    injector.always = "500"
    again = judged(records=records, patience_seconds=1)
    assert again.failures == []
    assert again.total.tolist() == first.total.tolist()
    assert again.metrics["judge/known"].mean == 1
    other = judged(records=records, patience_seconds=1, seed=1)
    assert {failure.kind for failure in other.failures} == {"unavailable"}
