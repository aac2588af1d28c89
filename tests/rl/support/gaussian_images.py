"""Images whose elements are independent Gaussians: their optimal denoiser and its loss have a closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from configs.algorithm_options import LikelihoodOptions
from models.images.prediction import Prediction
from models.images.spec import Guidance, ImageSpec
from rl.likelihood.image_elbo import ImageElbo, recorded
from rollout.images.kernels.levels import Level
from rollout.options import DenoisingOptions
from rollout.trajectory import ImageTrajectory

CPU = torch.device("cpu")
MEAN, STD = 0.5, 0.6
FLOW_SCHEDULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
DDIM_SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "num_train_timesteps": 1000,
}
FLOW = ImageSpec(
    family="sd3",
    prediction=Prediction.flow,
    guidance=Guidance.classifier_free,
    distilled=False,
    latent_channels=4,
    pixels_per_cell=4,
    patch=1,
    image_size=32,
    largest_size=None,
    even_sigmas=False,
    scheduler=FLOW_SCHEDULER,
)
EPSILON = replace(FLOW, prediction=Prediction.epsilon, scheduler=DDIM_SCHEDULER)
V = replace(FLOW, prediction=Prediction.v, scheduler={**DDIM_SCHEDULER, "prediction_type": "v_prediction"})
SPECS = {"flow": FLOW, "epsilon": EPSILON, "v": V}
Network = Callable[..., Tensor]


def elbo_of(spec: ImageSpec, steps: int = 10, **options: Any) -> ImageElbo:
    return ImageElbo(spec, DenoisingOptions(steps=steps), LikelihoodOptions(**options), recorded, CPU)


def groups(count: int, size: int, seed: int = 0) -> list[ImageTrajectory]:
    """Rollouts that ended with the data: `count` prompts with `size` samples each."""
    finals = torch.randn(count, size, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) * STD + MEAN
    return [
        ImageTrajectory(
            ticket=0,
            update=0,
            version=0,
            seed=7,
            prompt_id=f"p{index}",
            sampler="",
            uid=np.arange(size) + 1000 * index + 1,
            logp=np.zeros((size, 1)),
            mask=np.ones((size, 1), bool),
            caption="a dog",
            first_step=0,
            levels=np.zeros((11, 3)),
            guided=np.zeros(1, bool),
            embeds=np.zeros((2, 3), np.float32),
            final=final.numpy(),
        )
        for index, final in enumerate(finals)
    ]


def mixing(spec: ImageSpec, time: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 1, 1, 1) signal and noise at the times that a network is told."""
    if spec.prediction is Prediction.flow:
        noise = time / 1000
        signal = 1 - noise
    else:
        power = signal_powers()[time.long()]
        signal, noise = power.sqrt(), (1 - power).sqrt()
    return signal.view(-1, 1, 1, 1), noise.view(-1, 1, 1, 1)


def signal_powers() -> Tensor:
    """(1000,) of Stable Diffusion's schedule, written out."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    return (1 - betas).cumprod(0).float()


def optimal(spec: ImageSpec) -> Network:
    """The posterior mean of the target given the noisy latent, in every element."""

    def network(latents: Tensor, time: Tensor, *condition: Tensor | None) -> Tensor:
        signal, noise = mixing(spec, time)
        surprise = (latents - signal * MEAN) / (signal**2 * STD**2 + noise**2)
        x0, eps = MEAN + signal * STD**2 * surprise, noise * surprise
        if spec.prediction is Prediction.epsilon:
            return eps
        return signal * eps - noise * x0 if spec.prediction is Prediction.v else eps - x0

    return network


def optimal_loss(spec: ImageSpec, level: Level) -> float:
    """Posterior variance of the target. With V = a^2 s^2 + b^2 it is a^2 s^2 / V for epsilon, s^2 (a^2 + b^2)^2 / V for
    v, and s^2 (a + b)^2 / V for a flow."""
    a, b = level.signal, level.noise
    variance = a**2 * STD**2 + b**2
    if spec.prediction is Prediction.epsilon:
        return a**2 * STD**2 / variance
    return STD**2 * ((a + b) ** 2 if spec.prediction is Prediction.flow else (a**2 + b**2) ** 2) / variance
