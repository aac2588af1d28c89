"""What a real judge answers, and how it is read. It is a small one: what it thinks is of no interest here."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from rewards.judge.rubric import judge
from rewards.judge.server import Server
from rewards.judge.win_rate import judge_win_rate
from tests.rewards.judge.conftest import SERVED_AS

pytestmark = [pytest.mark.judge, pytest.mark.timeout(400)]


class Asked:
    """Calls a judge as a scorer does, and keeps what it tells."""

    def __init__(self, server: Server, monkeypatch: pytest.MonkeyPatch, **args: Any) -> None:
        served = server.served()
        monkeypatch.setenv("JUDGE_KEY", served.key)
        self.args = {"url": served.url, "model": SERVED_AS, "key_variable": "JUDGE_KEY", **args}
        self.failed: dict[int, tuple[str, str]] = {}
        self.metrics: dict[str, float] = {}

    def __call__(self, function: Any, prompts: list[str], completions: list[str], **more: Any) -> list[Any]:
        self.failed, self.metrics = {}, {}
        return asyncio.run(
            function(
                prompts=prompts,
                completions=completions,
                log_failed=lambda place, status, why: self.failed.__setitem__(place, (status, why)),
                log_metric=self.metrics.__setitem__,
                **{**self.args, **more},
            )
        )


QUESTIONS = ["What is 2+2?", "Name a colour.", "What is the capital of France?"]
ANSWERS = ["4", "Blue is a colour.", "I do not know"]


def test_an_expected_score_is_that_of_the_words_of_the_scale(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(server, monkeypatch, mode="expectation", least_mass=0.05)
    values = asked(judge, QUESTIONS, ANSWERS)
    assert asked.failed == {}
    assert all(1 < value < 5 for value in values)
    assert len(set(values)) == 3
    assert 0.05 < asked.metrics["judge/mass"] < 1
    assert asked(judge, QUESTIONS, ANSWERS) == values  # to the bit
    assert asked.metrics["judge/known"] == 1.0

    assert asked(judge, QUESTIONS, ANSWERS, least_mass=0.999) == [None] * 3
    assert {status for status, _ in asked.failed.values()} == {"invalid"}
    assert "least_mass=0.999" in asked.failed[0][1]


def test_a_constrained_verdict_is_a_word_of_the_scale(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = Asked(server, monkeypatch, constrained=True, records=str(tmp_path))
    values = asked(judge, QUESTIONS, ANSWERS)
    assert set(values) <= {1.0, 2.0, 3.0, 4.0, 5.0}
    assert asked.failed == {}
    assert asked.metrics["judge/prompt_tokens"] > 50
    assert asked.metrics["judge/answer_tokens"] >= 1
    assert asked.metrics["judge/known"] == 0
    assert len([line for file in tmp_path.iterdir() for line in file.read_text().splitlines()]) == 3


def test_an_answer_that_is_no_word_of_the_scale_is_no_score(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(server, monkeypatch, scores={"splendid": 1, "dreadful": 0})
    assert asked(judge, QUESTIONS[:1], ANSWERS[:1]) == [None]
    assert asked.failed[0][0] == "invalid"
    assert "none of" in asked.failed[0][1]


SCHEMA = {
    "type": "object",
    "properties": {
        "right": {"type": "integer", "minimum": 0, "maximum": 9},
        "clear": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["right", "clear"],
    "additionalProperties": False,
}


def test_structured_answers_have_a_score_for_each_criterion(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(server, monkeypatch, mode="json", schema=SCHEMA)
    values = asked(judge, QUESTIONS[:2], ANSWERS[:2])
    assert asked.failed == {}
    assert [set(value) for value in values] == [{"right", "clear"}] * 2
    assert all(value in range(10) for row in values for value in row.values())

    assert asked(judge, QUESTIONS[:1], ANSWERS[:1], max_tokens=3) == [None]
    assert "cut at max_tokens" in asked.failed[0][1]


def test_votes_are_drawn_anew_and_counted(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(server, monkeypatch, constrained=True, votes=5, temperature=1.0, scores={"1": 0, "2": 1})
    (value,) = asked(judge, QUESTIONS[:1], ANSWERS[:1])
    assert value in (0.0, 1.0)
    assert asked.metrics["judge/answer_tokens"] >= 5
    assert asked(judge, QUESTIONS[:1], ANSWERS[:1]) == [value]


def test_a_text_that_is_too_long_costs_itself_alone(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(server, monkeypatch, constrained=True)
    values = asked(judge, QUESTIONS[:2], [ANSWERS[0], "too long " * 2000])
    assert values[0] is not None
    assert values[1] is None
    assert asked.failed[1][0] == "error"
    assert "status 400" in asked.failed[1][1]
    assert "context length" in asked.failed[1][1]


def test_win_rates_come_from_both_orders_and_lie_around_a_half(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(server, monkeypatch, constrained=True)
    answers = ["4", "Blue", "four", "4", "Red is a colour.", "Seven"]
    prompts = [QUESTIONS[0], QUESTIONS[1]] * 3
    values = asked(judge_win_rate, prompts, answers, groups=[0, 1, 0, 0, 1, 1])
    assert asked.failed == {}
    assert all(0 <= value <= 1 for value in values)
    assert sum(values[place] for place in (0, 2, 3)) == pytest.approx(1.5)  # every pair has one point
    assert values[0] == values[3]  # the same text
    assert 0 <= asked.metrics["judge/place_decides"] <= 1

    soft = asked(
        judge_win_rate,
        prompts,
        answers,
        groups=[0, 1, 0, 0, 1, 1],
        mode="expectation",
        constrained=False,
        least_mass=0.001,
    )
    assert sum(soft) == pytest.approx(3.0)
    assert soft != values
