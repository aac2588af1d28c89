"""Prompts in several segments through rollout, replay, guidance, reward gradients, users, data and export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster.weights import pack_weights
from models.images.checkpoint import load_prompt_encoder
from models.lora import trainable_parameters
from models.options import UserAdapterOptions
from rl.data.problems import Problem
from rl.data.rows import DataError
from rl.likelihood.image_reward_gradient import ImageRewardGradient, undrawn
from rl.modality.image import ImageModality
from rollout.noise import Purpose, normal
from rollout.options import DenoisingOptions, KernelKind
from rollout.trajectory import ImageTrajectory, read_parquet, write_parquet
from tests.models.pipelines import CLIP_TOKENS, image_options, tiny_pipeline
from tests.rl.support.image_learning import configuration
from tests.rl.support.image_rollouts import (
    CPU,
    GROUP,
    largest_gap,
    pipeline_folder,
    replayed,
    roll_out,
    worker_of,
)

LONG = "red cats sit down by a lake"
"""Two segments of the tiny tokenizer, whose encoder reads 14 letters."""
REWARD = ["reward.terms.a.function=jpeg_compressibility"]
USER = np.array([1.0, -2.0, 0.5], np.float32)


@pytest.mark.parametrize(("family", "guidance"), [("sd", 1.0), ("sd", 4.0), ("sdxl", 4.0)])
def test_replay_is_what_the_rollout_recorded(tmp_path: Path, family: str, guidance: float) -> None:
    """Of a long and a short prompt, in the same batches."""
    worker = worker_of(pipeline_folder(tmp_path, family), prompt_segments=2)
    options = DenoisingOptions(steps=4, height=32, width=32, guidance=guidance)
    trajectories, _ = roll_out(worker, options, (LONG, "a dog"))
    write_parquet(trajectories, tmp_path / "groups.parquet")
    read: list[ImageTrajectory] = read_parquet(tmp_path / "groups.parquet")
    for trajectory in read:
        assert trajectory.embeds is not None
        assert len(trajectory.embeds) == 2 * CLIP_TOKENS
        empty = trajectory.unconditional_embeds
        assert guidance == 1 if empty is None else empty.shape == trajectory.embeds.shape
    assert largest_gap(read, replayed(worker.policy, read, options)) <= 1e-5
    long, short = (trajectory.embeds for trajectory in read)
    cut = replace(read[0], embeds=np.concatenate([long[:CLIP_TOKENS], short[CLIP_TOKENS:]]))
    assert largest_gap([cut], replayed(worker.policy, [cut], options)) > 1e-4  # the network sees the second segment


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_pictures_are_the_stock_pipelines_with_these_embeddings(tmp_path: Path, family: str) -> None:
    """And they depend on the last word."""
    folder = pipeline_folder(tmp_path, family)
    worker = worker_of(folder, prompt_segments=2)
    options = DenoisingOptions(steps=4, height=32, width=48, guidance=5.0, kernel=KernelKind.ode)
    (trajectory,), _ = roll_out(worker, options, (LONG,))
    encoder = load_prompt_encoder(image_options(folder, prompt_segments=2))
    told, empty = encoder.encode([LONG] * GROUP), encoder.encode([""] * GROUP)
    pooled = (
        {}
        if told.pooled is None
        else {"pooled_prompt_embeds": told.pooled, "negative_pooled_prompt_embeds": empty.pooled}
    )
    stock = tiny_pipeline(family)(
        prompt_embeds=told.embeds,
        negative_prompt_embeds=empty.embeds,
        **pooled,
        height=32,
        width=48,
        latents=normal(torch.tensor(trajectory.uid), trajectory.final.shape[1:], 0, Purpose.INITIAL),
        num_inference_steps=4,
        guidance_scale=5.0,
        output_type="latent",
    ).images.numpy()
    assert np.abs(stock - trajectory.final).max() < 1e-5 * np.abs(stock).max()
    (other,), _ = roll_out(worker, options, (LONG.replace("lake", "lane"),))  # from the same noise
    assert np.abs(other.final - trajectory.final).max() > 1e-4 * np.abs(stock).max()


def test_users_have_long_prompts_too(tmp_path: Path) -> None:
    worker = worker_of(pipeline_folder(tmp_path, "sdxl"), prompt_segments=2, user_adapter=UserAdapterOptions(3))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in trainable_parameters(worker.policy).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    options = DenoisingOptions(steps=3, height=32, width=32, guidance=4.0)
    trajectories, _ = roll_out(worker, options, (LONG, "a dog"), users=(USER, -USER))
    assert largest_gap(trajectories, replayed(worker.policy, trajectories, options)) <= 1e-5
    swapped = [replace(t, user=user) for t, user in zip(trajectories, (-USER, USER), strict=True)]
    assert largest_gap(swapped, replayed(worker.policy, swapped, options)) > 1e-3


def test_text_encoders_are_tuned_by_the_words_of_every_segment(tmp_path: Path) -> None:
    """TextCraftor: the learner's pictures are the worker's, and letters of the second segment get a gradient."""
    folder = pipeline_folder(tmp_path, "sd")
    options = ["rollout.denoising.steps=3", "algorithm.reward_gradient.last_steps=2", "rollout.denoising.guidance=2"]
    config = configuration(
        folder, "algorithm=text_craftor", "reward.terms.a.function=brightness", "model.prompt_segments=2", *options
    )
    modality = ImageModality(config)
    modality.check()
    policy = modality.policy(CPU)
    scorer = modality.likelihood(policy, CPU)
    assert isinstance(scorer, ImageRewardGradient)
    scorer.score(policy, scorer.rows([undrawn("a", LONG, {}, [3], 0)], 0)).log_prob.sum().backward()
    letters = policy.text_encoders["text_encoder"].get_input_embeddings().weight.grad
    tokenizer = tiny_pipeline("sd").tokenizer
    assert (letters[tokenizer("lake").input_ids].abs().amax(1) > 0).all()
    assert (letters[tokenizer("pug").input_ids[1:-1]] == 0).all()


def test_a_prompt_that_is_still_too_long_is_named(tmp_path: Path) -> None:
    folder = pipeline_folder(tmp_path, "sd")
    modality = ImageModality(configuration(folder, "algorithm=precise_grpo", "model.prompt_segments=2", *REWARD))
    assert modality.prompt(Problem("a", LONG, {})).caption == LONG
    with pytest.raises(DataError, match=r"b: prompt .* takes 3 segments, but model.prompt_segments allows 2"):
        modality.prompt(Problem("b", f"{LONG} {LONG}", {}))


@pytest.mark.parametrize(("segments", "said"), [(1, False), (2, True)])
def test_export_says_that_no_pipeline_splits_prompts(tmp_path: Path, segments: int, said: bool) -> None:
    folder = pipeline_folder(tmp_path, "sd")
    overrides = [f"model.prompt_segments={segments}", *REWARD]
    modality = ImageModality(configuration(folder, "algorithm=precise_grpo", *overrides))
    weights = pack_weights(0, trainable_parameters(modality.policy(CPU)))
    written = modality.export(weights, tmp_path / "out", adapter_only=False, half=False)
    assert written.startswith("sd pipeline for diffusers")
    assert (f"model.prompt_segments={segments}" in written) == said
