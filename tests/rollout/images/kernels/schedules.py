"""Schedules and a network that knows the data, shared by the tests of the kernels."""

from __future__ import annotations

import torch

from models.images.prediction import Prediction
from rollout.images.kernels.levels import Level, levels

FLOW_SCHEDULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
DDIM_SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "prediction_type": "v_prediction",
}


def flow(steps: int) -> tuple[Level, ...]:
    return levels(FLOW_SCHEDULER, steps, 0, Prediction.flow, even_sigmas=True)


def variance_preserving(steps: int) -> tuple[Level, ...]:
    return levels(DDIM_SCHEDULER, steps, 0, Prediction.v)


SCHEDULES = {"flow": flow, "variance_preserving": variance_preserving}


def output(prediction: Prediction, level: Level, x0: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
    """What a network says that believes in this clean latent and this noise."""
    if prediction is Prediction.epsilon:
        return eps
    if prediction is Prediction.v:
        return level.signal * eps - level.noise * x0
    return eps - x0
