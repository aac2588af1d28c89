"""How answers become numbers, and which never do."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rewards.judge.verdict import (
    Invalid,
    Reply,
    criteria_of,
    expectation,
    majority,
    of_schema,
    reply_of,
    verdict,
)
from rewards.remote.client import OddAnswer, OtherModel

SCALE = {"1": 0.0, "2": 0.5, "3": 1.0}


def reply(text: str = "", likely: dict[str, float] | None = None) -> Reply:
    pairs = None if likely is None else tuple((token, math.log(chance)) for token, chance in likely.items())
    return Reply(text, "stop", (10, 1), pairs)


def test_an_expectation_is_over_the_words_of_the_scale_alone() -> None:
    value, mass = expectation(reply(likely={"1": 0.2, " 1": 0.1, "3": 0.3, "The": 0.4}), SCALE, 0.5)
    assert mass == pytest.approx(0.6)
    assert value == pytest.approx(0.3 / 0.6)


def test_an_expectation_over_too_little_is_none() -> None:
    with pytest.raises(Invalid, match=r"only 0.3 of the probability.*least_mass=0.5"):
        expectation(reply("The", {"1": 0.3, "The": 0.7}), SCALE, 0.5)
    with pytest.raises(Invalid, match="only 0 of"):
        expectation(Reply("The", "stop", (1, 1), (("1", -9999.0), ("The", 0.0))), SCALE, 1e-9)
    with pytest.raises(Invalid):
        expectation(Reply("1", "stop", (1, 1), (("1", float("nan")),)), SCALE, 0.1)


@pytest.mark.parametrize("text", ["", "4", "1.", "1 or 2", "one", "Score: 3", "12", "\uff13"])
def test_a_verdict_is_a_word_of_the_scale_and_nothing_like_one(text: str) -> None:
    assert verdict(reply(" 2\n"), SCALE) == 0.5
    with pytest.raises(Invalid, match="none of 1, 2, 3"):
        verdict(reply(text), SCALE)


SCHEMA = {
    "type": "object",
    "properties": {"why": {"type": "string"}, "score": {"type": "integer", "minimum": 0, "maximum": 4}},
    "required": ["score"],
}


def test_structured_answers_are_checked_against_the_schema() -> None:
    assert criteria_of(SCHEMA) == ["score"]
    assert of_schema(reply('{"why": "so", "score": 3}'), SCHEMA) == {"score": 3.0}
    for text in ('{"score": 9}', '{"score": "3"}', '{"score": true}', "{}", "[3]", '{"score": null}', '{"score": 3'):
        with pytest.raises(Invalid):
            of_schema(reply(text), SCHEMA)
    with pytest.raises(Invalid, match="cut at max_tokens"):
        of_schema(Reply('{"sc', "length", (1, 1)), SCHEMA)


def test_most_votes_count_and_a_tie_is_no_verdict() -> None:
    assert majority([1.0, 0.0, 1.0]) == 1.0
    with pytest.raises(Invalid, match="tie"):
        majority([1.0, 0.0])


def completion(**changed: Any) -> dict[str, Any]:
    message = {"message": {"content": "2"}, "finish_reason": "stop", "logprobs": None}
    usage = {"prompt_tokens": 5, "completion_tokens": 1}
    return {"model": "m", "choices": [message], "usage": usage} | changed


def test_only_the_answer_of_the_model_that_was_asked_is_one() -> None:
    assert reply_of(completion(), "m", False) == Reply("2", "stop", (5, 1))
    with pytest.raises(OtherModel, match=r"of the model 'n', and 'm' was asked"):
        reply_of(completion(model="n"), "m", False)
    odd = [
        [],
        "text",
        {},
        completion(model=None),
        completion(choices=[]),
        completion(choices=[{"message": {"content": None}, "finish_reason": "stop"}]),
        completion(usage=None),
    ]
    for answer in odd:
        with pytest.raises(OddAnswer):
            reply_of(answer, "m", False)
    with pytest.raises(OddAnswer):
        reply_of(completion(), "m", True)
