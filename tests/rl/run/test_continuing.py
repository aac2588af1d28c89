"""A run goes on under the configuration that it had: everything else is refused by name."""

from __future__ import annotations

import copy
import dataclasses
import functools
import operator
from typing import Any

import pytest
from omegaconf import OmegaConf

from configs.compose import compose
from configs.errors import UserError
from configs.fields import AtResume, leaves, mark_of, may_change, paths, type_of, without_none
from configs.schema import EvaluationOptions
from rl.run.continuing import check_continues, evaluation_identity


def options(*overrides: str) -> Any:
    recipe = [] if overrides and overrides[0].startswith("recipe=") else ["recipe=quickstart"]
    return OmegaConf.to_container(compose([*recipe, *overrides]).resolved, enum_to_str=True)


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


DECIDE_EVALUATIONS = {
    "data.evaluation",
    "evaluation.samples",
    "evaluation.images_per_prompt",
    "evaluation.prompts_per_ticket",
    "rollout.denoising.evaluation_steps",
}
DECIDE_NOTHING = {
    *("model.path", "data.train.name"),  # whose contents are compared
    *(f"reward.{name}" for name in ("timeout_seconds", "startup_timeout_seconds", "memory_gib", "max_failed_fraction")),
    *("rollout.timeout_seconds", "evaluation.every", "reward.try_first", "reward.pools", "reward.allow_weak_sandbox"),
    *(f"judge.{name}" for name in ("python", "cpus", "gpus", "threads", "startup_seconds", "unhealthy_seconds")),
    *(f"cluster.{name}" for name in ("address", "rollout_workers", "reward_workers", "cpus")),
    *("cluster.startup_timeout_seconds", "cluster.step_timeout_seconds"),
    *(f"run.{name}" for name in ("name", "folder", "updates", "checkpoint_every", "keep_checkpoints", "resume")),
    *("run.keep_trajectories", "run.snapshot_gib"),
}


def test_every_option_that_may_change_says_whether_evaluations_depend_on_it() -> None:
    """Who marks another one decides it here, too. An option without a mark is refused at a resume."""
    marks = {mark.path: mark.decides for path in paths() if (mark := mark_of(path))}
    assert {path for path, decides in marks.items() if decides is AtResume.evaluations} == DECIDE_EVALUATIONS
    assert {path for path, decides in marks.items() if decides is AtResume.nothing} == DECIDE_NOTHING
    assert {f"evaluation.{field.name}" for field in dataclasses.fields(EvaluationOptions)} <= marks.keys()
    for path in marks:
        without_none(type_of(path))
    assert not may_change("what data.train holds")


def test_a_mark_is_one_of_two() -> None:
    @dataclasses.dataclass
    class Other:
        option: int = dataclasses.field(default=1, metadata={"resume": "may chnage"})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("configs.fields.Config", Other)
        with pytest.raises(ValueError, match="may chnage"):
            mark_of("option")


def test_evaluations_compare_when_problems_and_samples_are_the_same() -> None:
    """Each option of the configuration in turn, set to something else."""
    now = options("data.evaluation.args={max_terms: 3}")
    identity = evaluation_identity(now)
    decided = set()
    for path in leaves(now):
        changed = copy.deepcopy(now)
        *parents, name = path.split(".")
        functools.reduce(operator.getitem, parents, changed)[name] = "something else"
        if evaluation_identity(changed) != identity:
            decided.add(path)
    of_problems = {path for path in leaves(now) if path.startswith("data.evaluation.")}
    assert "data.evaluation.args.max_terms" in of_problems
    assert decided == (DECIDE_EVALUATIONS - {"data.evaluation"}) | of_problems
    assert evaluation_identity(options("data.evaluation=null")) != evaluation_identity(options())


@pytest.mark.parametrize(
    ("overrides", "identity"),
    [
        (["recipe=quickstart"], "8e166f300b986195"),
        (["recipe=quickstart_image"], "1b7a927c365dafc3"),
        (["recipe=quickstart", "data.evaluation=null"], "605e724b1dd26d6a"),
    ],
)
def test_old_runs_evaluations_compare_with_today_s(overrides: list[str], identity: str) -> None:
    """Hashes that runs have in their evaluations.jsonl."""
    assert evaluation_identity(options(*overrides)) == identity
