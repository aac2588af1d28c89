"""What is wrong with a judge's arguments is said before anything is asked."""

from __future__ import annotations

from typing import Any

import pytest

from rewards.judge.settings import Settings
from rewards.judge.terms import judge_problems, placed
from rewards.options import JudgeOptions, Per, RewardOptions, RewardTerm
from rewards.registry import RewardError, check_columns

HERE = {"url": "http://127.0.0.1:1/v1", "model": "m"}
SCHEMA = {"type": "object", "properties": {"score": {"type": "number"}}, "required": ["score"]}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"mode": "guess"}, "mode=guess"),
        ({"scores": {"good": 1}}, "two words at least"),
        ({"scores": {"good": 1, "bad": "0"}}, r"scores.bad='0'"),
        ({"scores": {"good": 1, " bad": 0}}, "white space"),
        ({"scores": {"good": 1, "bad": float("nan")}}, r"scores.bad=nan"),
        ({"least_mass": 0}, "least_mass=0"),
        ({"temperature": -1}, "temperature=-1"),
        ({"votes": 3}, "votes=3 with temperature=0"),
        ({"votes": 3, "temperature": 1, "mode": "expectation"}, "which is no draw"),
        ({"votes": True}, "votes=True"),
        ({"mode": "json"}, "belong together"),
        ({"schema": SCHEMA}, "belong together"),
        ({"mode": "json", "schema": {"type": "objekt"}}, "no JSON schema"),
        ({"mode": "json", "schema": {"type": "object", "properties": {"a": {"type": "string"}}}}, "integer or number"),
        ({"mode": "json", "schema": {**SCHEMA, "required": []}}, "schema.required must name score"),
        ({"mode": "json", "schema": SCHEMA, "constrained": True}, "constrained is for mode=verdict"),
        ({"url": "served"}, "model is not for url=served"),
        ({"model": None}, "model is missing"),
        ({"url": "localhost:8000"}, "http://HOST:PORT"),
        ({"url": "http://me:secret@host/v1"}, "by an environment variable"),
        ({"url": "https://host/v1?key=secret"}, "by an environment variable"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"patience_seconds": "60"}, "patience_seconds is '60'"),
        ({"tempature": 1}, "did you mean temperature"),
        ({"template": "quality2"}, "packaged ones"),
    ],
)
def test_arguments_that_cannot_work_are_refused_by_name(args: dict[str, Any], said: str) -> None:
    with pytest.raises(RewardError, match=rf"reward.terms.mine.args: .*{said}"):
        check_columns("mine", RewardTerm("judge", args={**HERE, **args}), ["answer"])


def test_a_key_is_never_sent_unencrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    Settings.of(HERE, "quality")
    Settings.of({**HERE, "url": "https://host/v1"}, "quality")
    with pytest.raises(ValueError, match="unencrypted") as found:
        Settings.of({**HERE, "url": "http://host/v1"}, "quality")
    assert "sk-secret" not in str(found.value)
    Settings.of({**HERE, "url": "http://host/v1", "key_variable": None}, "quality")


def test_columns_and_constants_are_the_templates(tmp_path: Any) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text("{{ completion }} {{ answer }} {{ audience }}")
    args = {**HERE, "template": str(file), "audience": "children"}
    check_columns("mine", RewardTerm("judge", args=args), ["answer"])
    with pytest.raises(RewardError, match="asks for answer"):
        check_columns("mine", RewardTerm("judge", args=args), ["solution"])
    with pytest.raises(RewardError, match="column 'seed' has the name of an argument"):
        check_columns("mine", RewardTerm("judge", args=args), ["answer", "seed"])
    with pytest.raises(RewardError, match="has the scale A and B"):
        check_columns("mine", RewardTerm("judge_win_rate", args={**HERE, "scores": {"A": 1, "B": 0}}), [])
    check_columns("mine", RewardTerm("judge_win_rate", args=HERE), [])
    with pytest.raises(RewardError, match=r"args\.audience is a list, and a call on as many samples"):
        check_columns("mine", RewardTerm("judge", args={**args, "audience": ["children", "adults"]}), ["answer"])


def problems(judge: JudgeOptions | None = None, **term: Any) -> list[str]:
    reward = RewardOptions(terms={"mine": RewardTerm(**{"timeout_seconds": 300.0, "function": "judge", **term})})
    return list(judge_problems(reward, judge))


SERVED = JudgeOptions(model="m", python="python")


def test_options_that_cannot_work_together_are_found_before_the_start() -> None:
    assert problems(SERVED) == problems(args=HERE) == []
    assert "none is served: set judge.model" in problems()[0]
    assert "no term of the reward asks it" in problems(SERVED, args=HERE)[0]
    assert "set reward.terms.mine.per=group" in problems(SERVED, function="judge_win_rate")[0]
    assert problems(SERVED, function="judge_win_rate", per=Per.group) == []
    assert "judge.cpus=0" in problems(JudgeOptions(model="m", python="python", cpus=0))[0]
    assert "must be above patience_seconds + request_seconds = 180" in problems(SERVED, timeout_seconds=None)[0]
    assert "looks like a sample that hangs" in problems(function="remote_reward_model", timeout_seconds=100)[0]
    assert problems(function="math", timeout_seconds=1) == []


def test_a_run_says_where_the_judge_and_its_verdicts_are(tmp_path: Any) -> None:
    reward = RewardOptions(
        terms={"a": RewardTerm("judge"), "b": RewardTerm("judge", args=HERE), "c": RewardTerm("math")}
    )
    terms = placed(reward, tmp_path / "judge", tmp_path / "where.json").terms
    assert terms["a"].args == {"records": str(tmp_path / "judge"), "served": str(tmp_path / "where.json")}
    assert terms["b"].args == {**HERE, "records": str(tmp_path / "judge")}
    assert terms["c"] is reward.terms["c"]
