"""The forward process: clean latents, mixed with noise at any level, and what the network should make of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from models.prediction import Prediction
from rollout.kernels.levels import FLOW_SCHEDULERS, check_prediction


@dataclass(frozen=True)
class MixingLevels:
    """One level for each of B rows."""

    prediction: Prediction
    time: Tensor
    """(B,) fp32, as the network is told"""
    signal: Tensor
    """(B, 1, 1, 1) fp32"""
    noise: Tensor
    """(B, 1, 1, 1) fp32"""

    def to(self, device: torch.device) -> MixingLevels:
        return MixingLevels(self.prediction, self.time.to(device), self.signal.to(device), self.noise.to(device))

    def corrupt(self, clean: Tensor, noise: Tensor) -> Tensor:
        return self.signal * clean + self.noise * noise

    def target(self, clean: Tensor, noise: Tensor) -> Tensor:
        """What a perfect network would say, were the noise known."""
        if self.prediction is Prediction.epsilon:
            return noise
        if self.prediction is Prediction.v:
            return self.signal * noise - self.noise * clean
        return noise - clean


class ForwardProcess:
    """The levels that a pipeline's scheduler was trained on."""

    def __init__(self, scheduler_config: Mapping[str, Any], prediction: Prediction) -> None:
        """Raises KernelError when prediction and scheduler do not go together."""
        check_prediction(scheduler_config, prediction)
        self.prediction = prediction
        self.training_steps = int(scheduler_config.get("num_train_timesteps", 1000))
        self.alphas_cumprod: Tensor | None = None
        if scheduler_config["_class_name"] not in FLOW_SCHEDULERS:
            self.alphas_cumprod = DDIMScheduler.from_config(dict(scheduler_config)).alphas_cumprod.double()

    def levels_at(self, quantile: Tensor) -> MixingLevels:
        """
        Args:
            quantile: (B,) in (0, 1), how far towards pure noise: a flow's sigma, or the place in the training steps.
        """
        if self.alphas_cumprod is None:
            time, signal, noise = quantile * self.training_steps, 1 - quantile, quantile
        else:
            step = (quantile * self.training_steps).long()
            power = self.alphas_cumprod[step]
            time, signal, noise = step, power.sqrt(), (1 - power).sqrt()
        return MixingLevels(self.prediction, time.float(), _column(signal), _column(noise))


def _column(values: Tensor) -> Tensor:
    return values.float().view(-1, 1, 1, 1)
