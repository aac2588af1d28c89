"""A run goes on under the configuration that it had: everything else is refused by name."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from omegaconf import OmegaConf

from configs.compose import compose
from configs.errors import UserError
from configs.fields import leaves, may_change, paths, type_of, without_none
from rl.run.continuing import check_continues, evaluation_identity


def options(*overrides: str) -> Any:
    return OmegaConf.to_container(compose(["recipe=quickstart", *overrides]).resolved, enum_to_str=True)


def test_another_algorithm_reward_or_rate_is_refused_with_every_difference_and_both_ways_on() -> None:
    with pytest.raises(UserError) as caught:
        check_continues(
            options(),
            options("algorithm=dipo", "reward=math", "algorithm.optimizer.learning_rate=1e-2"),
            "runs/a/u000010",
        )
    message = str(caught.value)
    assert "runs/a/u000010" in message
    rate = options()["algorithm"]["optimizer"]["learning_rate"]
    for line in (f"algorithm.optimizer.learning_rate: {rate} then, 0.01 now", "reward.terms.", "algorithm.anchor: "):
        assert line in message
    assert "use the old values" in message
    assert "run.name" in message
    assert "run.resume=false" in message
    assert "run.seed" not in message


@pytest.mark.parametrize(
    "change",
    [
        "run.folder=elsewhere",
        "run.updates=1000",
        "run.keep_checkpoints=7",
        "evaluation.every=3",
        "data.evaluation.size=5",
        "data.evaluation=null",
        "cluster.rollout_workers=3",
        "cluster.step_timeout_seconds=1",
        "reward.timeout_seconds=3",
        "rollout.timeout_seconds=3",
    ],
)
def test_what_decides_nothing_may_change_and_is_reported(change: str) -> None:
    changed = check_continues(options(), options(change), "x")
    section = change.partition("=")[0]
    assert changed
    assert all(path.startswith(section) for path in changed)


def test_every_other_option_is_compared() -> None:
    """One after the other: no option is left out by a list that somebody forgot to write it into."""
    now = options()
    flat = leaves(now)
    compared = 0
    for path, value in flat.items():
        if may_change(path):
            continue
        changed = copy.deepcopy(now)
        *parents, name = path.split(".")
        section = changed
        for parent in parents:
            section = section[parent]
        section[name] = "something else" if value != "something else" else "another"
        with pytest.raises(UserError, match=f"\\n  {path}: "):
            check_continues(now, changed, "x")
        compared += 1
    assert compared > 100


def test_an_option_that_only_one_of_them_has_is_a_difference() -> None:
    now = options()
    then = copy.deepcopy(now)
    del then["algorithm"]["clip"]
    with pytest.raises(UserError, match=r"algorithm\.clip: \(not set\) then"):
        check_continues(then, now, "x")
    with pytest.raises(UserError, match=r"reward\.terms\.extra\.weight"):
        check_continues(now, options("reward.terms.extra.function=math"), "x")


def test_what_may_change_is_said_beside_options_that_exist() -> None:
    free = {path for path in paths() if may_change(path)}
    assert {"run.name", "run.updates", "evaluation.samples", "data.evaluation.size", "cluster.address"} <= free
    assert not free & {"run.seed", "cluster.learners", "cluster.zero_stage", "cluster.threads", "rollout.group_size"}
    assert not may_change("what data.train holds")
    for path in free:
        without_none(type_of(path))


def test_evaluations_compare_when_problems_and_samples_are_the_same() -> None:
    now = evaluation_identity(options())
    assert evaluation_identity(options("evaluation.every=3")) == now
    for change in ("evaluation.samples=9", "data.evaluation.size=9", "data.evaluation=null"):
        assert evaluation_identity(options(change)) != now
