"""Whole runs on real Ray and DeepSpeed: exact resume, equal learners, timing independence, lost workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import ray

from tests.rl.support.training import SMALL, assert_same_weights, metrics, run_on_ray, small_run, weights_after

ROOT = Path(__file__).parents[3]
SLOW = partial(pytest.param, marks=pytest.mark.slow)
"""For repetitions of a whole run under one more option."""


@pytest.fixture(scope="module")
def straight(model, tmp_path_factory) -> Path:
    """The reference: four updates, one learner, one worker, undisturbed, in one process."""
    folder = tmp_path_factory.mktemp("runs")
    small_run(model, folder, "run.name=straight")
    return folder / "straight"


def test_every_update_reproduces_what_its_rollout_recorded(straight):
    rows = metrics(straight)
    assert len(rows) == 4
    for row in rows:
        assert row["logp/max_error"] <= 1e-5
        assert row["ratio/max_error"] <= 1e-5
        assert row["ratio/clip_fraction"] == 0
    assert [row["learner/optimizer_updates"] for row in rows] == [1, 2, 3, 4]


def test_rewards_rise(straight):
    rows = metrics(straight)
    assert rows[-1]["reward/mean"] > rows[0]["reward/mean"]


@pytest.mark.parametrize("stage", [SLOW(0), 1, SLOW(2), SLOW(3)])
def test_two_learners_update_as_one_does(cluster, straight, model, tmp_path, stage):
    run_on_ray(model, tmp_path, "run.name=two", "cluster.learners=2", f"cluster.zero_stage={stage}", "run.updates=2")
    assert_same_weights(tmp_path / "two", straight, 1e-5, update=2)


def test_workers_pools_and_asynchrony_do_not_change_the_samples(cluster, straight, model, tmp_path):
    """The measure is what the reward is, scored by workers of its own, of which one has a place."""
    measure = "reward.terms.again={function: tests.rl.support.rewards.share_of_ones, weight: 0.0, pool: own}"
    pool = "reward.pools.own={workers: 2, cpus: 0.1}"
    run_on_ray(
        model,
        tmp_path,
        "run.name=two",
        "cluster.rollout_workers=2",
        "cluster.reward_workers=2",
        measure,
        pool,
    )
    assert_same_weights(tmp_path / "two", straight)
    rows = metrics(tmp_path / "two")
    again = [row.pop("reward/again") for row in rows]
    assert rows == metrics(straight)
    assert again == [row["reward/answer"] for row in rows]


def test_a_killed_rollout_worker_changes_nothing(cluster, straight, model, tmp_path):
    """The worker is killed once the first update is recorded; its ticket is issued again."""
    killed = []

    def kill() -> None:
        deadline = time.monotonic() + 120
        path = tmp_path / "killed" / "metrics.jsonl"
        while time.monotonic() < deadline and not (path.exists() and path.read_text().count("\n")):
            time.sleep(0.02)
        pid = ray.get(ray.get_actor("killed/rollout-0").__ray_call__.remote(lambda self: os.getpid()))
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    thread = threading.Thread(target=kill)
    thread.start()
    run_on_ray(model, tmp_path, "run.name=killed")
    thread.join()
    assert killed
    assert_same_weights(tmp_path / "killed", straight)
    assert metrics(tmp_path / "killed") == metrics(straight)


@pytest.mark.parametrize("staleness", [SLOW(0), 1])
def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(cluster, straight, model, tmp_path, staleness):
    name = f"rollout.max_staleness={staleness}"
    if staleness:
        small_run(model, tmp_path, "run.name=straight", name)
    reference = tmp_path / "straight" if staleness else straight
    command = [sys.executable, "-m", "rl.cli", "train", *SMALL, f"model.path={model}", f"run.folder={tmp_path}"]
    command += ["run.name=resumed", name]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not (tmp_path / "resumed/checkpoints/u000002").exists():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    rows_when_killed = len(metrics(tmp_path / "resumed"))
    assert rows_when_killed < 4, "the run was killed too late to show anything"
    run_on_ray(model, tmp_path, "run.name=resumed", name)
    assert_same_weights(tmp_path / "resumed", reference)
    assert metrics(tmp_path / "resumed") == metrics(reference)


def test_without_resume_an_earlier_run_is_kept_aside(model, tmp_path):
    small_run(model, tmp_path, "run.name=again", "run.updates=2")
    small_run(model, tmp_path, "run.name=again", "run.updates=1", "run.resume=false")
    assert len(metrics(tmp_path / "again")) == 1
    assert len(metrics(tmp_path / "again.1")) == 2


@pytest.mark.slow
def test_a_value_model_resumes_and_trains_on_several_learners(cluster, model, tmp_path):
    """Its weights and moments are in the checkpoint: two updates and two more are four. Sharded over two learners it
    learns the same."""
    options = [
        "algorithm=tracerl_value",
        "algorithm.solved_band=null",
        "algorithm.minibatches=2",
        "algorithm.value.optimizer.learning_rate=1e-3",
        "algorithm.value.optimizer.eps=1e-5",
    ]
    small_run(model, tmp_path, "run.name=straight", *options)
    small_run(model, tmp_path, "run.name=resumed", *options, "run.updates=2")
    small_run(model, tmp_path, "run.name=resumed", *options)
    assert_same_weights(tmp_path / "resumed", tmp_path / "straight")
    rows = metrics(tmp_path / "straight")
    assert metrics(tmp_path / "resumed") == rows
    assert rows[0]["value/mean"] == 0 != rows[1]["value/mean"]
    run_on_ray(model, tmp_path, "run.name=two", *options, "cluster.learners=2", "cluster.zero_stage=3")
    assert_same_weights(tmp_path / "two", tmp_path / "straight", 5e-5)
    for row, other in zip(metrics(tmp_path / "two"), rows, strict=True):
        for name in ("value/loss", "value/mean", "value/explained_variance"):
            assert row[name] == pytest.approx(other[name], rel=1e-2, abs=1e-3)


ADAPTERS = ["model.lora.rank=4", "algorithm.kl.coefficient=0.1", "run.updates=2"]


@pytest.mark.slow
def test_two_learners_of_adapters_update_as_one_does(cluster, model, tmp_path):
    small_run(model, tmp_path, "run.name=one", *ADAPTERS)
    run_on_ray(model, tmp_path, "run.name=two", *ADAPTERS, "cluster.learners=2", "cluster.zero_stage=2")
    assert_same_weights(tmp_path / "one", tmp_path / "two", 1e-5, update=2)


def test_adapters_with_kl_to_the_reference(model, tmp_path):
    """LoRA trains adapters only, and the reference is the model without them."""
    small_run(model, tmp_path, "run.name=one", *ADAPTERS)
    assert all("lora" in name for name in weights_after(tmp_path / "one", 2))
    rows = metrics(tmp_path / "one")
    assert rows[0]["kl/reference"] == pytest.approx(0, abs=1e-6)
    assert rows[1]["kl/reference"] > 0


def test_bf16_replays_within_its_rounding(model, tmp_path):
    """Two bf16 steps of a logit between 2 and 4; a bf16 rotary table would add a relative error of 0.4 %."""
    small_run(model, tmp_path, "run.name=bf16", "model.precision=bf16", "cluster.zero_stage=1", "run.updates=3")
    rows = metrics(tmp_path / "bf16")
    assert all(row["logp/max_error"] < 0.04 for row in rows)
    assert rows[2]["reward/mean"] != rows[0]["reward/mean"]


def test_minibatches_and_epochs_are_counted_updates(model, tmp_path):
    small_run(model, tmp_path, "run.name=several", "algorithm.minibatches=2", "algorithm.epochs=2", "run.updates=2")
    assert [row["learner/optimizer_updates"] for row in metrics(tmp_path / "several")] == [4, 8]


@pytest.mark.parametrize("partition", ["shrink", "one"])
def test_coarse_replays_measure_parity_with_an_exact_one(model, tmp_path, partition):
    likelihood = [f"algorithm.likelihood.partition={partition}"]
    likelihood += ["algorithm.likelihood.shrink=2"] if partition == "shrink" else []
    small_run(model, tmp_path, "run.name=coarse", *likelihood, "algorithm.epochs=2", "run.updates=2")
    for row in metrics(tmp_path / "coarse"):
        assert row["logp/max_error"] <= 1e-5
        assert row["ratio/max_error"] <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["espo", "stable_drl", "online_dpo"])
def test_losses_that_join_samples_are_the_same_on_two_learners(cluster, model, tmp_path, algorithm):
    """Sequence ratios, a common divisor, pairs with a reference: over ranks and micro-batches of unequal number."""
    options = [f"algorithm={algorithm}", "algorithm.epochs=2", "algorithm.micro_batch_tokens=256", "run.updates=2"]
    small_run(model, tmp_path, "run.name=one", *options)
    run_on_ray(model, tmp_path, "run.name=two", *options, "cluster.learners=2", "cluster.zero_stage=2")
    assert_same_weights(tmp_path / "two", tmp_path / "one", 2e-5, update=2)


@pytest.mark.slow
def test_refills_are_the_same_again(cluster, model, tmp_path):
    """Groups outside of the band are replaced, alike in another run with more workers."""
    options = ["algorithm.solved_band=[0.0,0.9]", "reward.solved_at=0.5", "rollout.refills=2", "run.updates=3"]
    small_run(model, tmp_path, "run.name=one", *options)
    run_on_ray(model, tmp_path, "run.name=two", *options, "cluster.rollout_workers=2")
    assert_same_weights(tmp_path / "two", tmp_path / "one", update=2)
    rows = metrics(tmp_path / "one")
    assert rows == metrics(tmp_path / "two")
    assert any(row["groups/generated"] > 4 for row in rows)
    assert any(row["groups/used"] > 0 for row in rows)
