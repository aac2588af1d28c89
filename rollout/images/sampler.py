"""From noise to clean latents, one step of the schedule after the other, recording what is trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.images.spec import Guidance, ImageSpec
from models.parts import PartError, find
from rollout.images.guidance import Conditions, guided_output
from rollout.images.kernels.gaussian import GaussianSteps
from rollout.images.kernels.levels import Level, levels, start_scale
from rollout.images.kernels.transition import StepNoise
from rollout.noise import Purpose, normal
from rollout.options import DenoisingOptions, KernelKind


@dataclass(frozen=True)
class Chains:
    """N denoising chains over the stored span of D steps, on the CPU."""

    final: np.ndarray
    """(N, C, h, w) fp32 clean latents"""
    latents: np.ndarray
    """(N, D + 1, C, h, w) fp32 states around the stored steps; D = 0 if nothing is stored"""
    logp: np.ndarray
    """(N, D) fp64 log-probability of each stored step; 0 where it is deterministic"""
    computed: np.ndarray
    """(N, steps) bool: the network ran for this step of this chain; else for an earlier chain that shares it"""


class Schedule:
    """The levels and kernel that options and a model's scheduler make; shared by sampler and learner."""

    def __init__(self, spec: ImageSpec, options: DenoisingOptions) -> None:
        """
        Raises:
            KernelError: scheduler, prediction and kernel do not go together.
            ValueError: the image size does not suit the model.
        """
        self.options = options
        self.spec = spec
        height, width = options.height or spec.image_size, options.width or spec.image_size
        self.shape = spec.latent_shape(height, width)
        self.tokens = self.shape[1] * self.shape[2] // spec.patch**2
        even = spec.even_sigmas if options.even_sigmas is None else options.even_sigmas
        self.levels: tuple[Level, ...] = levels(
            spec.scheduler, options.steps, self.tokens, spec.prediction, even_sigmas=even
        )
        self.start_scale = start_scale(spec.scheduler, self.levels[0])
        self.kernel = GaussianSteps(
            spec.prediction,
            self.levels,
            options.kernel,
            options.eta,
            options.storage,
            options.log_prob,
            custom(options),
        )
        until = options.steps if options.guidance_until is None else options.guidance_until
        self.guided = tuple(
            self.classifier_free and options.guidance_from <= step < until for step in range(options.steps)
        )
        """Steps that run with classifier-free guidance."""

    @property
    def classifier_free(self) -> bool:
        return self.spec.guidance is Guidance.classifier_free and self.options.guidance != 1.0

    @property
    def embedded_scale(self) -> float | None:
        return self.options.guidance if self.spec.guidance is Guidance.embedded else None

    def level_array(self) -> np.ndarray:
        """(steps + 1, 3) fp64: time, signal, noise."""
        return np.array([(level.time, level.signal, level.noise) for level in self.levels], np.float64)


def custom(options: DenoisingOptions) -> StepNoise | None:
    """The noise of kernel=custom; None for the others. Raises PartError."""
    if options.kernel is not KernelKind.custom:
        return None
    if options.custom_kernel is None:
        raise PartError("kernel=custom is a function of yours: set rollout.denoising.custom_kernel to its dotted path")
    return find(options.custom_kernel, "rollout.denoising.custom_kernel")


class Shared:
    """Neighbours with the same history, which are one row of a batch."""

    def __init__(self, history: Tensor) -> None:
        """
        Args:
            history: (N, k) int64 whatever has made each of N samples what it is.
        """
        same = (history[1:] == history[:-1]).all(-1)
        starts = torch.cat([torch.ones(1, dtype=torch.bool), ~same])
        self.first = starts.nonzero()[:, 0]
        """(R,) the first sample of each row"""
        self.of_sample = starts.cumsum(0) - 1
        """(N,) the row of each sample"""

    def spread(self, values: Tensor) -> np.ndarray:
        """(N, ...) of each sample from (R, ...) of each row."""
        return values.cpu().numpy()[self.of_sample.numpy()]


class ImageSampler:
    """Its single steps can be differentiated; whole chains are drawn without gradient."""

    def __init__(
        self,
        policy: Callable[..., Tensor],
        schedule: Schedule,
        device: torch.device,
        unconditional_gradient: bool = True,
    ) -> None:
        self.policy = policy
        self.schedule = schedule
        self.device = device
        self.unconditional_gradient = unconditional_gradient

    @torch.no_grad()
    def sample(
        self,
        conditions: Conditions,
        keys: Tensor,
        first_noise: Tensor,
        window: tuple[int, ...],
        stored: range,
        observe: Callable[[int, Tensor], None] | None = None,
    ) -> Chains:
        """Neighbours whose keys have been the same so far share a row of the network's batch.

        Args:
            keys: (N, steps) int64 key of each sample's noise at each step.
            first_noise: (N,) int64 key of the noise it starts from.
            window: steps that draw noise; the others follow the ODE.
            stored: span of steps to record.
            observe: called with each step and the estimate of the clean latents there, (N, C, h, w).
        """
        schedule, kernel = self.schedule, self.schedule.kernel
        count, steps = keys.shape
        rows = Shared(first_noise[:, None])
        latents = self.start(first_noise[rows.first])
        states = np.zeros((count, len(stored) + 1 if stored else 0, *schedule.shape), np.float32)
        logp = np.zeros((count, len(stored)), np.float64)
        computed = np.zeros((count, steps), bool)
        for step in range(steps):
            if step in stored:
                states[:, step - stored.start] = rows.spread(latents)
            computed[rows.first, step] = True
            output = self.output(conditions.take(rows.first.to(self.device)), latents, step)
            if observe is not None:
                observe(step, kernel.denoised(latents, output, step)[rows.of_sample.to(self.device)])
            drawn = step in window
            if drawn:  # samples whose noise differs from here on part
                before, rows = rows, Shared(torch.cat([first_noise[:, None], keys[:, : step + 1]], dim=1))
                parent = before.of_sample[rows.first].to(self.device)
                latents, output = latents[parent], output[parent]
            following = self.advance(latents, output, step, keys[rows.first, step].to(self.device) if drawn else None)
            if drawn and step in stored:
                mean = kernel.mean(latents, output, step)
                logp[:, step - stored.start] = rows.spread(kernel.log_prob(following, mean, step))
            latents = following
            if step in stored:
                states[:, step - stored.start + 1] = rows.spread(latents)
        return Chains(rows.spread(latents), states, logp, computed)

    def start(self, first_noise: Tensor) -> Tensor:
        """(N, C, h, w) fp32 pure noise with keys (N,)."""
        noise = normal(first_noise.to(self.device), self.schedule.shape, 0, Purpose.INITIAL)
        return self.schedule.kernel.rounded(noise * self.schedule.start_scale)

    def advance(self, latents: Tensor, output: Tensor, step: int, uids: Tensor | None) -> Tensor:
        """(N, C, h, w) fp32 latents after a step.

        Args:
            uids: (N,) keys of the noise that the step draws; None for a step of the ODE.
        """
        noise = None if uids is None else normal(uids, self.schedule.shape, step, Purpose.DIFFUSION)
        return self.schedule.kernel.advance(latents, output, step, noise)

    def output(self, conditions: Conditions, latents: Tensor, step: int) -> Tensor:
        """(N, C, h, w) fp32 what the network makes of the latents before a step, guidance included."""
        schedule = self.schedule
        time = torch.full((len(latents),), schedule.levels[step].time, dtype=torch.float32, device=self.device)
        if not schedule.guided[step]:  # saves the unconditional half
            conditions = Conditions(conditions.prompt, None, conditions.embedded_scale)
        guided = torch.full((len(latents),), schedule.guided[step], device=self.device)
        return guided_output(
            self.policy, latents, time, conditions, schedule.options.guidance, guided, self.unconditional_gradient
        )
