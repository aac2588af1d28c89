"""What `denoiserl sample` says beside a completion."""

from __future__ import annotations

import pytest

from configs.compose import compose, recompose
from rl.commands.judging import Judge, reference
from rl.data.problems import Problem, open_source
from tests.rl.support.command_line import CommandLine


def test_the_reference_is_a_demonstration_or_a_known_column() -> None:
    assert reference(Problem("a/0", "1 + 1", {"answer": "two"}, responses=("2",))) == "2"
    assert reference(Problem("a/0", "1 + 1", {"other": "x", "answer": 2})) == "2"
    assert reference(Problem("a/0", "1 + 1", {"answer": ["2"], "solution": "two"})) == "two"
    assert reference(Problem("a/0", "1 + 1", {"question": "1 + 1"})) is None


@pytest.mark.processes
def test_a_completion_has_the_reward_that_a_run_would_give_or_the_reason_why_not(monkeypatch, tmp_path) -> None:
    measure = ["reward.terms.style.function=rewards.length.none", "reward.terms.style.weight=0"]
    config = compose(["recipe=quickstart"]).config
    assert config.data.evaluation is not None
    problem = open_source(config.data.evaluation)[0]
    with Judge(config) as judge:
        told = judge(problem, [problem.columns["answer"], "nonsense"], None)
        assert told.reference == problem.columns["answer"]
        assert told.scores[0] == "reward 1, solved"
        assert told.scores[1].startswith("reward 0")
        assert told.scores[1].endswith("not solved")
        (line,) = judge(Problem("--prompt", "1 2", {}), ["x"], None).scores
        assert line.startswith("not scored: ")
        assert "entry" in line
    with Judge(compose(["recipe=quickstart", *measure]).config) as judge:
        assert judge(problem, ["x"], None).scores[0].startswith("not scored: ")
    monkeypatch.setenv("A_KEY", "secret")
    kept = compose(["recipe=quickstart", "reward.terms.answer.args.key=${oc.env:A_KEY}"])
    (tmp_path / "config.yaml").write_text(kept.yaml)
    monkeypatch.delenv("A_KEY")
    with Judge(recompose(tmp_path / "config.yaml", [], to_read=True).config) as judge:
        (line,) = judge(problem, ["x"], None).scores
    assert line.startswith("not scored: reward.terms.answer.args.key needs the environment variable A_KEY")


@pytest.mark.processes
def test_sample_shows_reference_and_reward_and_has_a_short_mode(denoiserl: CommandLine) -> None:
    whole = denoiserl("sample", "recipe=quickstart", "--greedy")
    short = denoiserl("sample", "recipe=quickstart", "--greedy", "--short")
    assert "round 1 of" in whole.output
    assert "round 1 of" not in short.output
    for shown in (whole, short):
        assert shown.code == 0, shown.output
        assert "reward " in shown.output
        assert "solved" in shown.output
        assert " reference " in shown.output
    assert "--short is for texts" in denoiserl("sample", "recipe=quickstart_image", "--short").output
