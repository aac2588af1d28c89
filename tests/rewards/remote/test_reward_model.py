"""A reward model behind a URL, with a real service of that protocol, and everything that lies in between."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest

from rewards.options import RewardOptions, RewardTerm
from rewards.remote import client
from rewards.remote.reward_model import remote_reward_model
from rewards.scoring.scorer import Scorer
from rewards.scoring.scores import ScoreRequest
from rewards.unavailable import Unavailable
from tests.rewards.remote.injector import Injector
from tests.rewards.remote.service import service

PATH = "/get_reward"


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Iterator[Injector]:
    monkeypatch.setattr(client, "FIRST_WAIT", 0.01)
    with service() as (url, _), Injector(url).listening() as injector:
        yield injector


class Asked:
    def __init__(self, url: str, **args: Any) -> None:
        self.args = {"url": url + PATH, "request_seconds": 5.0, "patience_seconds": 5.0, **args}
        self.failed: dict[int, tuple[str, str]] = {}
        self.metrics: dict[str, float] = {}

    def __call__(self, *completions: str, **more: Any) -> list[float | None]:
        return asyncio.run(
            remote_reward_model(
                prompts=["ab"] * len(completions),
                completions=list(completions),
                log_failed=lambda place, status, why: self.failed.__setitem__(place, (status, why)),
                log_metric=self.metrics.__setitem__,
                **{**self.args, **more},
            )
        )


def test_it_is_asked_in_the_json_of_openrlhf() -> None:
    with service() as (url, seen):
        asked = Asked(url, label="answer", batch_size=2, concurrency=1)
        assert asked("c", "cd", "cde", answer=[1, None, "x"]) == [3.0, 4.0, 5.0]
        assert seen == [
            {"query": ["abc", "abcd"], "prompts": ["ab", "ab"], "labels": [1, None]},
            {"query": ["abcde"], "prompts": ["ab"], "labels": ["x"]},
        ]
        assert asked.metrics == {"remote/retries": 0, "remote/scores": 4, "remote/letters": 4, "remote/load": 0.5}
        asked("half a pair \ud800", label=None)
        assert seen[-1]["query"] == ["abhalf a pair \ud800"]
        with pytest.raises(ValueError, match=r"args.label=answr is no column; there are answer"):
            asked("c", label="answr", answer=[1])
    with pytest.raises(ValueError, match=r"needs args.url"):
        asked("c", url=None)


@pytest.mark.parametrize("fault", ["429", "500", "503", "408", "half", "reset", "as:{", "as:\xff"])
def test_what_may_pass_is_tried_again(between: Injector, fault: str) -> None:
    between.faults.extend([fault, fault])
    asked = Asked(between.url)
    assert asked("c") == [3.0]
    assert asked.metrics["remote/retries"] == 2
    assert between.requests == 3


def test_a_slow_answer_is_asked_for_again(between: Injector) -> None:
    between.faults.append("slow:2")
    asked = Asked(between.url, request_seconds=0.2)
    assert asked("c") == [3.0]
    assert asked.metrics["remote/retries"] == 1


def test_it_waits_as_long_as_it_is_asked_to_and_no_longer_than_its_patience(between: Injector) -> None:
    between.faults.append("429:0.3")
    began = time.monotonic()
    assert Asked(between.url)("c") == [3.0]
    assert time.monotonic() - began >= 0.3

    between.faults.append("429:3600")
    began = time.monotonic()
    with pytest.raises(Unavailable, match="status 429"):
        Asked(between.url)("c")
    assert time.monotonic() - began < 2
    assert 3500 < client._retry_after(formatdate(time.time() + 3600, usegmt=True)) <= 3600
    assert client._retry_after("soon") == client._retry_after("-5") == client._retry_after(None) == 0


def test_a_request_that_is_wrong_is_not_repeated_and_costs_its_samples(between: Injector) -> None:
    between.faults.append("422")
    asked = Asked(between.url, batch_size=1, concurrency=1)
    assert asked("c", "cd") == [None, 4.0]
    assert between.requests == 2
    assert asked.failed == {0: ("error", f'{between.url}{PATH}: status 422: {{"error": "injected"}}')}


@pytest.mark.parametrize("fault", ["401", "403", "404", "302"])
def test_what_is_wrong_for_everybody_is_said_at_once(between: Injector, fault: str) -> None:
    between.always = fault
    with pytest.raises(Unavailable, match=rf"{between.url} is|{PATH} is unavailable: status {fault}.*Start it again"):
        Asked(between.url)("c", "cd")


ODD = {
    "not an object": "[1.0]",
    "no rewards": '{"scores": [1.0]}',
    "too few": '{"rewards": []}',
    "too many": '{"rewards": [1.0, 2.0]}',
    "not a list": '{"rewards": 1.0}',
}


@pytest.mark.parametrize("body", ODD.values(), ids=ODD)
def test_an_answer_of_another_shape_is_no_reward(between: Injector, body: str) -> None:
    between.always = f"as:{body}"
    asked = Asked(between.url)
    assert asked("c") == [None]
    assert asked.failed[0][0] == "invalid"
    assert "in 3 answers" in asked.failed[0][1]
    assert between.requests == 3


@pytest.mark.parametrize("value", ["NaN", "Infinity", '"1.0"', "null", "true", "[1.0]", "1e999"])
def test_what_is_no_number_costs_its_sample_alone(between: Injector, value: str) -> None:
    between.faults.append(f'as:{{"rewards": [{value}, 2.0]}}')
    asked = Asked(between.url)
    assert asked("c", "cd") == [None, 2.0]
    assert asked.failed[0][0] == "invalid"
    assert "a finite number is expected" in asked.failed[0][1]


def test_one_that_fails_beside_others_is_its_own_failure(between: Injector) -> None:
    """The service is there; waiting for one of many as for a service that is down would take minutes each."""
    asked = Asked(between.url, batch_size=1, concurrency=2, patience_seconds=60.0)

    between.faults.extend(["500", ""] * 200)
    values = asked(*["c"] * 20)
    assert 3.0 in values
    for place, value in enumerate(values):
        assert (value is None) == (place in asked.failed)
    assert {status for status, _ in asked.failed.values()} <= {"error"}


def test_no_more_requests_are_in_the_air_than_allowed(between: Injector) -> None:
    between.always = "slow:0.02"
    Asked(between.url, batch_size=1, concurrency=3)(*["c"] * 12)
    assert 2 <= between.most_at_once <= 3


def test_one_that_is_not_there_is_waited_for_and_then_named(unused: int) -> None:
    url = f"http://127.0.0.1:{unused}"
    began = time.monotonic()
    with pytest.raises(Unavailable) as found:
        Asked(url, patience_seconds=0.5)("c")
    assert time.monotonic() - began < 2
    said = str(found.value)
    assert f"{url}{PATH} is unavailable: no answer in" in said
    assert "the connection failed" in said
    assert "reward.terms.NAME.args.url" in said


def test_one_that_comes_in_time_is_asked(unused: int) -> None:
    found: list[list[float | None]] = []
    asked = Asked(f"http://127.0.0.1:{unused}")
    waiting = threading.Thread(target=lambda: found.append(asked("c")))
    waiting.start()
    time.sleep(0.2)
    with service(unused):
        waiting.join(10)
    assert found == [[3.0]]
    assert asked.metrics["remote/retries"] >= 1


@pytest.fixture
def unused() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_service_that_is_down_costs_samples_by_name_and_never_a_number(unused: int) -> None:
    args = {"url": f"http://127.0.0.1:{unused}", "patience_seconds": 0.3}
    scorer = Scorer(RewardOptions({"rm": RewardTerm("remote_reward_model", args=args)}))
    try:
        scores = scorer.score(ScoreRequest(["a", "b", "c"], ["x", "y", "z"]))
    finally:
        scorer.stop()
    assert [failure.kind for failure in scores.failures] == ["unavailable"] * 3
    assert str(scores.total.tolist()) == "[nan, nan, nan]"
    assert f"127.0.0.1:{unused}" in scores.failures[0].message


def test_the_key_is_sent_and_shown_nowhere(
    between: Injector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RM_KEY", "sk-very-secret")
    between.faults.append(f"as:{json.dumps({'rewards': 'you said sk-very-secret'})}")
    asked = Asked(between.url, key_variable="RM_KEY")
    with caplog.at_level("DEBUG"):
        assert asked("c") == [3.0]
        between.faults.append("as:no JSON but sk-very-secret")
        between.always = "429:3600"
        with pytest.raises(Unavailable) as found:
            asked("c")
    assert between.authorizations == {"Bearer sk-very-secret"}
    assert "sk-very-secret" not in str(found.value) + caplog.text + str(asked.failed)
