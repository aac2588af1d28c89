"""Our prompt encoder, policy and codec around a plain sampler give what the stock pipeline's own call gives."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from torch import Tensor

from models.images.checkpoint import (
    load_image_codec,
    load_image_policy,
    load_prompt_encoder,
    read_image_spec,
)
from models.images.policy import Guidance, ImagePolicy, Prediction
from models.options import ModelOptions
from tests.models.pipelines import T5_TOKENS, ddim, tiny_pipeline

PROMPTS = ["red cat", "blue dog and"]
HEIGHT, WIDTH = 32, 48  # not square: rows and columns must not be exchanged anywhere
STEPS = 4

CASES = {
    "sd": ("sd", {}, 1.0),
    "sd guided": ("sd", {}, 5.0),
    "sd v-prediction guided": ("sd", {"prediction_type": "v_prediction"}, 5.0),
    "sdxl": ("sdxl", {}, 1.0),
    "sdxl guided": ("sdxl", {}, 5.0),
    "sd3": ("sd3", {}, 1.0),
    "sd3 guided": ("sd3", {}, 4.0),
    "flux embedded guidance": ("flux", {}, 3.5),
    "flux without guidance": ("flux", {"guidance_embeds": False}, 0.0),
}


@pytest.mark.parametrize("case", CASES)
def test_latents_and_images_are_the_stock_pipelines(tmp_path: Path, case: str) -> None:
    name, changes, scale = CASES[case]
    pipeline = tiny_pipeline(name, **(changes if name == "flux" else {}))
    if "prediction_type" in changes:
        pipeline.scheduler = ddim(**changes)
    pipeline.save_pretrained(tmp_path)
    options = ModelOptions(path=str(tmp_path), max_sequence_length=T5_TOKENS)
    noise = torch.randn(
        len(PROMPTS), *read_image_spec(options).latent_shape(HEIGHT, WIDTH), generator=torch.Generator().manual_seed(1)
    )

    expected = stock_call(pipeline, noise, scale, "latent")
    latents = sample(options, noise, levels(pipeline.scheduler), scale)
    assert (expected - noise).abs().max() > 0.1
    assert (latents - expected).abs().max() < 1e-5 * expected.abs().max()

    images = load_image_codec(options).decode(latents)
    assert images.dtype == torch.uint8
    unrounded = stock_call(pipeline, noise, scale, "np") * 255
    assert np.abs(images.numpy() - unrounded).max() < 0.5 + 1e-2


def stock_call(pipeline: Any, noise: Tensor, scale: float, output_type: str) -> Any:
    flux = isinstance(pipeline, FluxPipeline)
    cells = noise.shape[1:]
    output = pipeline(
        PROMPTS,
        height=HEIGHT,
        width=WIDTH,
        latents=FluxPipeline._pack_latents(noise, len(noise), *cells) if flux else noise,
        num_inference_steps=STEPS,
        guidance_scale=scale,
        output_type=output_type,
        **({"max_sequence_length": T5_TOKENS} if hasattr(pipeline, "transformer") else {}),
    ).images
    return FluxPipeline._unpack_latents(output, *cells[1:], 1) if flux and output_type == "latent" else output


def levels(scheduler: Any) -> list[tuple[float, float, float]]:
    """(time, signal, noise) of each step of the stock call that came before, and of the end."""
    times = [*scheduler.timesteps.tolist(), 0.0]
    if hasattr(scheduler, "sigmas"):
        return [(time, 1 - sigma, sigma) for time, sigma in zip(times, scheduler.sigmas.tolist(), strict=True)]
    products = [*scheduler.alphas_cumprod[scheduler.timesteps].tolist(), scheduler.final_alpha_cumprod.item()]
    return [(time, product**0.5, (1 - product) ** 0.5) for time, product in zip(times, products, strict=True)]


def sample(options: ModelOptions, latents: Tensor, schedule: list[tuple[float, float, float]], scale: float) -> Tensor:
    """The steps of DDIM (eta = 0) and of Euler are one rule: keep x0 and eps, change the level."""
    policy = load_image_policy(options)
    encoder = load_prompt_encoder(options)
    conditional, unconditional = encoder.encode(PROMPTS), encoder.encode([""] * len(PROMPTS))
    embedded = torch.full((len(PROMPTS),), scale) if policy.spec.guidance is Guidance.embedded else None
    for (time, signal, noise), (_, next_signal, next_noise) in pairwise(schedule):
        times = torch.full((len(PROMPTS),), time)
        with torch.no_grad():
            output = policy(latents, times, conditional.embeds, conditional.pooled, embedded)
            if policy.spec.guidance is Guidance.classifier_free and scale > 1:
                without = policy(latents, times, unconditional.embeds, unconditional.pooled, None)
                output = without + scale * (output - without)
        x0, eps = split(policy, latents, output, signal, noise)
        latents = next_signal * x0 + next_noise * eps
    return latents


def split(policy: ImagePolicy, latents: Tensor, output: Tensor, signal: float, noise: float) -> tuple[Tensor, Tensor]:
    """x0 and eps of latents = signal * x0 + noise * eps."""
    if policy.spec.prediction is Prediction.epsilon:
        return (latents - noise * output) / signal, output
    if policy.spec.prediction is Prediction.v:
        return signal * latents - noise * output, noise * latents + signal * output
    return latents - noise * output, latents + signal * output
