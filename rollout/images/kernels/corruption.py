"""The forward process: clean latents, mixed with noise at any level, and what the network should make of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.images.prediction import Prediction
from rollout.images.kernels.levels import Level, check_prediction
from rollout.images.kernels.schedulers import FLOW_SCHEDULERS, scheduler_of


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

    @classmethod
    def of(cls, prediction: Prediction, levels: Sequence[Level]) -> MixingLevels:
        values = torch.tensor([(level.time, level.signal, level.noise) for level in levels], dtype=torch.float32)
        time, signal, noise = values.unbind(-1)
        return cls(prediction, time, signal.view(-1, 1, 1, 1), noise.view(-1, 1, 1, 1))

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

    def denoised(self, noisy: Tensor, output: Tensor) -> Tensor:
        """(B, C, h, w) the clean latents that a network with this output believes in: `target` solved for them."""
        if self.prediction is Prediction.epsilon:
            return (noisy - self.noise * output) / self.signal
        if self.prediction is Prediction.v:
            return (self.signal * noisy - self.noise * output) / (self.signal.square() + self.noise.square())
        return (noisy - self.noise * output) / (self.signal + self.noise)


class ForwardProcess:
    """The levels that a pipeline's scheduler was trained on."""

    def __init__(self, scheduler_config: Mapping[str, Any], prediction: Prediction) -> None:
        """Raises KernelError when prediction and scheduler do not go together, or the scheduler is refused."""
        scheduler = scheduler_of(scheduler_config)
        check_prediction(scheduler_config, prediction)
        self.training_steps = scheduler.config.num_train_timesteps
        self.alphas_cumprod: Tensor | None = None
        if type(scheduler).__name__ not in FLOW_SCHEDULERS:
            self.alphas_cumprod = scheduler.alphas_cumprod.double()

    def level(self, place: float) -> Level:
        """
        Args:
            place: in [0, 1), how far towards pure noise: a flow's sigma, or the place in the training steps.
        """
        if self.alphas_cumprod is None:
            return Level(place * self.training_steps, 1 - place, place)
        step = int(place * self.training_steps)
        power = float(self.alphas_cumprod[step])
        return Level(float(step), power**0.5, (1 - power) ** 0.5)
