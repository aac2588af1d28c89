"""Whole runs of image policies on real Ray and DeepSpeed: the same promises as for text, through the same loop."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from rl.run.metrics import read_rows
from rollout.trajectory import ImageTrajectory, read_parquet
from tests.rl.support.training import SMALL_IMAGES, assert_same_weights, metrics, run_on_ray, small_run, weights_after

ROOT = Path(__file__).parents[3]
TOLERANCE = 1e-5


def run(model: Path, folder: Path, *overrides: str) -> None:
    small_run(model, folder, *overrides, base=SMALL_IMAGES)


def on_ray(model: Path, folder: Path, *overrides: str) -> None:
    run_on_ray(model, folder, *overrides, base=SMALL_IMAGES)


@pytest.fixture(scope="module")
def straight(flow, tmp_path_factory) -> Path:
    """The reference: a flow transformer, four updates of two minibatches with KL, one learner, one worker, in one
    process."""
    folder = tmp_path_factory.mktemp("runs")
    run(flow, folder, "run.name=straight")
    return folder / "straight"


def test_the_first_minibatch_reproduces_what_its_rollout_recorded(straight):
    rows = metrics(straight)
    assert len(rows) == 4
    for row in rows:
        assert row["logp/max_error"] <= TOLERANCE
        assert row["ratio/max_error"] <= TOLERANCE
        assert row["rollout/trained_steps_mean"] == 3  # of four, the last of which draws no noise
    assert rows[0]["kl/reference"] >= 0
    assert [row["learner/optimizer_updates"] for row in rows] == [2, 4, 6, 8]


def test_rewards_rise(straight):
    rows = metrics(straight)
    assert rows[-1]["reward/mean"] > rows[0]["reward/mean"]


def test_trajectories_are_kept_without_images(straight):
    trajectories = read_parquet(straight / "trajectories" / "u000003.parquet")
    assert all(isinstance(t, ImageTrajectory) for t in trajectories)
    assert all(t.image is None and t.rewards is not None for t in trajectories)
    assert trajectories[0].latents.shape[:2] == (4, 4)


@pytest.mark.slow
def test_two_learners_update_as_one_does(cluster, straight, flow, tmp_path):
    on_ray(flow, tmp_path, "run.name=two", "cluster.learners=2", "cluster.zero_stage=2", "run.updates=2")
    assert_same_weights(tmp_path / "two", straight, 2e-5, update=2)


@pytest.mark.slow
def test_workers_do_not_change_the_samples(cluster, straight, flow, tmp_path):
    on_ray(flow, tmp_path, "run.name=two", "cluster.rollout_workers=2", "cluster.reward_workers=2")
    assert_same_weights(tmp_path / "two", straight)
    assert metrics(tmp_path / "two") == metrics(straight)


@pytest.mark.slow
def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(cluster, unet, tmp_path):
    """With DDPO, whose statistics of each prompt's rewards must be continued too, guidance, and a UNet."""
    options = ["algorithm=ddpo", "algorithm.running.minimum=4", "rollout.denoising.guidance=2", "data.train.prompt=red"]
    run(unet, tmp_path, "run.name=straight", *options)
    command = [sys.executable, "-m", "rl.cli", "train", *SMALL_IMAGES, f"model.path={unet}", f"run.folder={tmp_path}"]
    process = subprocess.Popen(
        [*command, "run.name=resumed", *options], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 200
    while not (tmp_path / "resumed/checkpoints/u000002").exists():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert len(metrics(tmp_path / "resumed")) < 4, "the run was killed too late to show anything"
    on_ray(unet, tmp_path, "run.name=resumed", *options)
    assert_same_weights(tmp_path / "resumed", tmp_path / "straight")
    assert metrics(tmp_path / "resumed") == metrics(tmp_path / "straight")


def test_the_old_policy_survives_a_resume(flow, tmp_path):
    """With DiffusionNFT, whose generating policy is not the trained one: two updates and two more are four."""
    options = ["algorithm=nft", "algorithm.old.growth=0.2", "run.checkpoint_every=1"]
    run(flow, tmp_path, "run.name=straight", *options)
    run(flow, tmp_path, "run.name=resumed", *options, "run.updates=2")
    run(flow, tmp_path, "run.name=resumed", *options)
    assert_same_weights(tmp_path / "resumed", tmp_path / "straight")
    assert metrics(tmp_path / "resumed") == metrics(tmp_path / "straight")


def test_adapters_with_kl_and_their_export(unet, tmp_path):
    """LoRA on a UNet: only adapters move, the reference is the network without them, and diffusers loads the result."""
    from diffusers import StableDiffusionPipeline

    from rl.commands.policies import export_run

    adapters = [
        "model.lora.rank=2",
        "model.lora.target_modules=[to_q,to_k,to_v,to_out.0]",
        "algorithm.kl.coefficient=0.1",
        "run.updates=2",
    ]
    run(unet, tmp_path, "run.name=lora", *adapters)
    assert all("lora" in name for name in weights_after(tmp_path / "lora", 2))
    rows = metrics(tmp_path / "lora")
    assert rows[1]["kl/reference"] > 0
    export_run(tmp_path / "lora", tmp_path / "exported", None, adapter_only=False)
    export_run(tmp_path / "lora", tmp_path / "adapter", None, adapter_only=True)
    merged = StableDiffusionPipeline.from_pretrained(tmp_path / "exported", safety_checker=None)
    adapted = StableDiffusionPipeline.from_pretrained(unet, safety_checker=None)
    before = draw(adapted)
    adapted.load_lora_weights(tmp_path / "adapter")
    torch.testing.assert_close(draw(merged), draw(adapted), rtol=0, atol=1e-4)
    assert (draw(adapted) - before).abs().max() > 1e-4


def draw(pipeline) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    return pipeline("red", latents=latents, num_inference_steps=3, guidance_scale=1.0, output_type="latent").images


def test_bf16_replays_within_its_rounding(flow, tmp_path):
    bf16 = ["model.precision=bf16", "cluster.zero_stage=1"]
    run(flow, tmp_path, "run.name=bf16", *bf16, "rollout.denoising.log_prob=mean", "run.updates=2")
    assert all(row["logp/max_error"] < 5e-2 for row in metrics(tmp_path / "bf16"))


@pytest.mark.slow
def test_supervised_training_learns_and_evaluates(cluster, flow, tmp_path):
    """Demonstrations are encoded by the learner; two of them agree with one; held-out images are kept as pictures."""
    options = [
        "algorithm=sft",
        "algorithm.optimizer.learning_rate=1e-3",
        "algorithm.optimizer.eps=1e-5",
        "evaluation.every=10",
        "evaluation.samples=0",
        "data.evaluation.prompt=red",
        "run.updates=20",
        "rollout.prompts_per_update=16",
        "rollout.prompts_per_ticket=16",
        "run.checkpoint_every=20",
    ]
    run(flow, tmp_path, "run.name=one", *options)
    losses = [row["learner/loss"] for row in metrics(tmp_path / "one")]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert (tmp_path / "one/pictures/greedy/u000020/00.png").is_file()
    assert (tmp_path / "one/before_after_greedy.png").stat().st_size > 10_000
    assert (tmp_path / "one/summary.json").is_file()
    on_ray(flow, tmp_path, "run.name=two", *options, "cluster.learners=2", "evaluation.every=0")
    assert_same_weights(tmp_path / "one", tmp_path / "two", 1e-4, update=20)


def test_terms_are_reported_with_intervals(flow, tmp_path):
    """Also those of weight 0, which are measured but not rewarded."""
    run(
        flow,
        tmp_path,
        "run.name=terms",
        "reward.terms.blueness.function=tests.rl.support.rewards.redness",
        "reward.terms.blueness.weight=0",
        "evaluation.every=1",
        "data.evaluation.prompt=red",
        "run.updates=1",
    )
    row = read_rows(tmp_path / "terms/evaluations.jsonl")[-1]
    for kind in ("greedy", "sampled"):
        for term in ("redness", "blueness"):
            name = f"evaluation/{kind}/term/{term}"
            assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]
    assert row["evaluation/greedy/reward"] == pytest.approx(row["evaluation/greedy/term/redness"])
    summary = json.loads((tmp_path / "terms/summary.json").read_text())
    assert {"held_out", "max_logprob_gap", "first_ratio_error"} <= summary.keys()
    assert summary["held_out"]["sampled"].keys() == {"reward", "term/redness", "term/blueness"}
