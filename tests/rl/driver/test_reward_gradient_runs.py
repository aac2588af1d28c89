"""Whole runs by reward gradients on real Ray and DeepSpeed."""

from __future__ import annotations

import pytest

from rewards.registry import RewardError
from rl.run.metrics import read_rows
from tests.rl.support.training import SMALL_IMAGES, assert_same_weights, metrics, run_on_ray, small_run

OPTIONS = [
    *SMALL_IMAGES,
    "algorithm=align_prop",
    "algorithm.reward_gradient.last_steps=2",
    "algorithm.reward_gradient.cut_std=1",
    "rollout.group_size=1",
    "reward.terms.brightness.function=brightness",
    "reward.terms.redness.weight=0",
    "data.evaluation.prompt=red",
    "data.evaluation.size=8",
]


def test_a_run_learns_and_evaluates_the_same_reward(unet, tmp_path):
    small_run(unet, tmp_path, "run.name=one", "evaluation.every=4", base=OPTIONS)
    rows = metrics(tmp_path / "one")
    assert [row["reward/mean"] for row in rows] == [-row["learner/loss"] for row in rows]
    assert rows[-1]["reward/mean"] > rows[0]["reward/mean"]
    assert [row["learner/optimizer_updates"] for row in rows] == [1, 2, 3, 4]
    before, after = read_rows(tmp_path / "one/evaluations.jsonl")
    assert after["evaluation/sampled/term/brightness"] > before["evaluation/sampled/term/brightness"]
    assert before["evaluation/sampled/term/brightness"] == pytest.approx(rows[0]["reward/mean"], abs=0.05)
    assert (tmp_path / "one/summary.json").is_file()


def test_a_reward_without_gradient_is_refused_before_anything_starts(unet, tmp_path):
    with pytest.raises(RewardError, match=r"reward.terms.redness.function=.* cannot be differentiated"):
        small_run(unet, tmp_path, "run.name=refused", "reward.terms.redness.weight=1", base=OPTIONS)
    assert not (tmp_path / "refused").exists()


@pytest.mark.slow
def test_learners_and_interruptions_do_not_change_the_weights(cluster, unet, tmp_path):
    small_run(unet, tmp_path, "run.name=one", base=OPTIONS)
    run_on_ray(unet, tmp_path, "run.name=two", "cluster.learners=2", "cluster.zero_stage=3", base=OPTIONS)
    assert_same_weights(tmp_path / "one", tmp_path / "two", 2e-5)
    small_run(unet, tmp_path, "run.name=resumed", "run.updates=2", base=OPTIONS)
    small_run(unet, tmp_path, "run.name=resumed", base=OPTIONS)
    assert_same_weights(tmp_path / "one", tmp_path / "resumed")
