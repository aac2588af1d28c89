"""Which noise levels the denoising loss of a sample is taken at."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from configs.algorithm_options import LikelihoodOptions, NoiseLaw
from models.images.spec import ImageSpec
from rollout.images.kernels.corruption import ForwardProcess
from rollout.images.kernels.levels import Level
from rollout.images.sampler import Schedule
from rollout.noise import Purpose, uniform
from rollout.options import DenoisingOptions

EDGE = 1e-6
"""Continuous levels keep this far from clean and from pure noise, where a target or a logit would be infinite."""


class NoiseLevels:
    """Draws the levels of samples. They are stratified: draw j of n takes the law's quantile (u + j) / n, with one u
    for all draws of a sample.

    On a grid of K levels these are systematic samples: n <= K of them are distinct, and every level is drawn equally
    often on average.
    """

    def __init__(self, spec: ImageSpec, sampler: DenoisingOptions, options: LikelihoodOptions) -> None:
        """
        Args:
            sampler: whose schedule is the grid, or whose image size an inversion's schedule may depend on.

        Raises:
            KernelError: scheduler and prediction do not go together, or not with the number of steps.
            ValueError: no level of the grid is in the range.
        """
        self.law, self.draws = options.noise_law, options.draws
        self.low, self.high = options.level_range
        self.process = ForwardProcess(spec.scheduler, spec.prediction)
        self.grid: tuple[Level, ...] = ()
        """All levels of the schedule, from pure noise to clean, where the law has a schedule."""
        if self.law is NoiseLaw.grid:
            self.grid = Schedule(spec, sampler).levels
        if self.law is NoiseLaw.inversion:
            self.grid = Schedule(spec, replace(sampler.greedy(), steps=options.inversion_steps)).levels
        steps = len(self.grid) - 1
        self.choice = self.grid[round(steps * (1 - self.high)) : round(steps * (1 - self.low))] if self.grid else ()
        """The levels that are drawn from; never the clean one."""
        if self.grid and not self.choice:
            raise ValueError(
                f"level_range={list(options.level_range)} holds none of the {steps} levels that noise_law="
                f"{self.law.name} draws from; widen it"
            )

    def draw(self, key: Tensor, draw: int) -> list[list[Level]]:
        """The levels of each sample's draws.

        Args:
            key: (S,) int64, equal for samples that share their levels.
            draw: counter of the pass.
        """
        zero = torch.zeros_like(key)
        first = uniform(key, zero, zero + draw, Purpose.LEVEL)
        quantiles = (first[:, None] + torch.arange(self.draws)) / self.draws  # (S, n)
        if self.choice:
            index = (quantiles * len(self.choice)).long().clamp(max=len(self.choice) - 1)
            return [[self.choice[i] for i in row] for row in index.tolist()]
        places = self._places(quantiles).clamp(EDGE, 1 - EDGE)
        return [[self.process.level(place) for place in row] for row in places.tolist()]

    def _places(self, quantiles: Tensor) -> Tensor:
        """fp64 in [low, high]: how far towards pure noise."""
        low, high = self.low, self.high
        if self.law is NoiseLaw.logit_normal:  # Stable Diffusion 3, arXiv 2403.03206, eq. 19; cut to the range
            low, high = torch.special.ndtr(torch.logit(torch.tensor([low, high], dtype=torch.float64))).tolist()
            return torch.special.ndtri((low + (high - low) * quantiles).clamp(EDGE, 1 - EDGE)).sigmoid()
        return low + (high - low) * quantiles
