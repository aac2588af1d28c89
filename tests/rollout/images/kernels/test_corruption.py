"""The forward process mixes as the schedulers do, and its target gives the clean latent back."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from models.images.prediction import Prediction
from rollout.images.kernels.corruption import ForwardProcess, MixingLevels
from rollout.images.kernels.errors import KernelError
from rollout.images.kernels.gaussian import estimates
from rollout.images.kernels.levels import Level

SCHEDULERS = {
    Prediction.epsilon: DDIMScheduler(clip_sample=False),
    Prediction.v: DDIMScheduler(clip_sample=False, prediction_type="v_prediction"),
    Prediction.flow: FlowMatchEulerDiscreteScheduler(shift=3.0),
}


def config_of(prediction: Prediction) -> dict:
    scheduler = SCHEDULERS[prediction]
    return {**scheduler.config, "_class_name": type(scheduler).__name__}


def levels_at(prediction: Prediction, *places: float) -> MixingLevels:
    process = ForwardProcess(config_of(prediction), prediction)
    return MixingLevels.of(prediction, [process.level(place) for place in places])


def tensors() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 2, 4, 4, generator=generator), torch.randn(3, 2, 4, 4, generator=generator)


@pytest.mark.parametrize("prediction", Prediction)
def test_the_target_leads_back_to_the_clean_latent(prediction):
    clean, noise = tensors()
    levels = levels_at(prediction, 0.1, 0.5, 0.9)
    noisy, target = levels.corrupt(clean, noise), levels.target(clean, noise)
    torch.testing.assert_close(levels.denoised(noisy, target), clean, atol=1e-4, rtol=1e-4)
    for row in range(3):
        level = Level(float(levels.time[row]), float(levels.signal[row]), float(levels.noise[row]))
        x0, eps = estimates(prediction, level)
        torch.testing.assert_close(x0.latent * noisy[row] + x0.output * target[row], clean[row], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(eps.latent * noisy[row] + eps.output * target[row], noise[row], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prediction", [Prediction.epsilon, Prediction.v])
def test_training_steps_are_the_schedulers(prediction):
    clean, noise = tensors()
    scheduler = SCHEDULERS[prediction]
    levels = levels_at(prediction, 0.0, 0.5, 0.9995)
    steps = torch.tensor([0, 500, 999])
    assert levels.time.tolist() == [0, 500, 999]
    torch.testing.assert_close(levels.corrupt(clean, noise), scheduler.add_noise(clean, noise, steps))
    if prediction is Prediction.v:
        torch.testing.assert_close(levels.target(clean, noise), scheduler.get_velocity(clean, noise, steps))


def test_a_flow_is_a_straight_line():
    clean, noise = tensors()
    levels = levels_at(Prediction.flow, 0.0, 0.25, 1.0)
    assert levels.time.tolist() == [0, 250, 1000]
    mixed = levels.corrupt(clean, noise)
    torch.testing.assert_close(mixed[0], clean[0])
    torch.testing.assert_close(mixed[1], 0.75 * clean[1] + 0.25 * noise[1])
    torch.testing.assert_close(mixed[2], noise[2])


def test_a_prediction_that_does_not_fit_the_scheduler_is_refused():
    with pytest.raises(KernelError, match="does not belong to its network"):
        ForwardProcess(config_of(Prediction.flow), Prediction.epsilon)
