"""The denoising loss of an image model, of demonstrations or of what a rollout ended with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from configs.algorithm_options import LikelihoodOptions, LossWeight, NoiseLaw
from models.images.spec import Condition, ImageSpec
from rl.algorithm.denoising_scores import DenoisingScores
from rl.algorithm.scored_rows import ScoredRow
from rl.data.tickets import derive_seed
from rl.likelihood.inversion import invert
from rl.likelihood.noise_levels import NoiseLevels
from rollout.images.kernels.corruption import MixingLevels
from rollout.images.kernels.levels import Level
from rollout.images.sampler import Schedule
from rollout.noise import Purpose, normal
from rollout.options import DenoisingOptions
from rollout.trajectory import ImageTrajectory, Trajectory, TrajectoryError

TIME_POWER = {LossWeight.none: 0, LossWeight.time: 1, LossWeight.time_squared: 2, LossWeight.huber: 1}
HUBER_POWER = 0.25
HUBER_OFFSET = 1e-4
"""AWM's code has 1e-10, where an output that is exact up to rounding still gets a large gradient."""

Encode = Callable[[ImageTrajectory], tuple[Tensor, Condition]]
"""Clean latents (G, C, h, w) and condition (1, ...) of a trajectory."""


@dataclass
class Corruption:
    """One clean latent and the noise it is to be found under."""

    clean: Tensor
    """(C, h, w)"""
    condition: Condition
    level: Level
    key: int
    counter: int
    """Of the noise, which is drawn where it is needed."""
    inverted: Tensor | None = None
    """(C, h, w) noise that an inversion found instead."""


class ImageElbo:
    """Minus the denoising loss: add noise of some level, score the network's output by its mean squared error (DDPM's
    L_simple, arXiv 2006.11239, eq. 14, for epsilon and v; flow matching, arXiv 2210.02747, eq. 23).

    The unweighted loss is no bound on the log-likelihood, but the same weighting of levels that the models were trained
    with. Classifier-free guidance is off: the loss trains the conditional output, as DiffusionNFT, AWM and DGPO do.
    """

    exact = False
    gap_scale = 1.0
    fresh_noise = True

    def __init__(
        self,
        spec: ImageSpec,
        sampler: DenoisingOptions,
        options: LikelihoodOptions,
        encode: Encode,
        device: torch.device,
    ) -> None:
        self.spec = spec
        self.options = options
        self.draws = options.draws
        self.overlapping = options.draws > 1
        self.encode = encode
        self.device = device
        self.levels = NoiseLevels(spec, sampler, options)
        self.embedded_scale = Schedule(spec, sampler).embedded_scale
        self.inverting = options.noise_law is NoiseLaw.inversion

    def decisions_of(self, trajectory: Trajectory) -> Trajectory:
        """The finished image is the one decision, also where a rollout recorded its steps."""
        trajectory = _checked(trajectory)
        if trajectory.latents is None:
            return trajectory
        shape = trajectory.group_size, 1
        unguided = np.zeros(1, bool)
        return replace(
            trajectory, latents=None, first_step=0, logp=np.zeros(shape), mask=np.ones(shape, bool), guided=unguided
        )

    def rows(self, trajectories: Sequence[Trajectory], draw: int) -> list[ScoredRow]:
        samples = [(index, sample) for index, t in enumerate(trajectories) for sample in range(t.group_size)]
        encoded = [self.encode(_checked(trajectory)) for trajectory in trajectories]
        keys = [self._key(trajectories[index], sample) for index, sample in samples]
        rows = []
        drawn = self.levels.draw(torch.tensor(keys), draw)
        for (index, sample), key, levels in zip(samples, keys, drawn, strict=True):
            latents, condition = encoded[index]
            tokens = latents.shape[-2] * latents.shape[-1] // self.spec.patch**2
            for place, level in enumerate(levels):
                content = Corruption(latents[sample], condition, level, key, draw * self.draws + place)
                weight = np.array([self._weight(level)], np.float32)
                step = np.array([place])
                rows.append(ScoredRow(content, index, sample, np.zeros(1, int), weight, step, tokens))
        return rows

    @torch.no_grad()
    def prepare(self, model: Callable[..., Tensor], rows: list[ScoredRow]) -> None:
        """With noise_law=inversion, leads each row's clean latents up to its level; the noise that explains where they
        arrive, eps = (x_t - signal x0) / noise, is the one to be found (DDIM-InPO, arXiv 2503.18454)."""
        if not self.inverting:
            return
        contents: list[Corruption] = [row.content for row in rows]
        ladder = self.levels.grid[::-1]
        steps = torch.tensor([ladder.index(content.level) for content in contents], device=self.device)
        clean = self._clean(contents)

        def predict(latents: Tensor, time: Tensor, which: Tensor) -> Tensor:
            return self._output(model, latents, time, [contents[row] for row in which.tolist()])

        latents = invert(predict, clean, steps, ladder, self.spec.prediction)
        level = self._mixing(contents)
        for content, noise in zip(contents, (latents - level.signal * clean) / level.noise, strict=True):
            content.inverted = noise

    def score(self, model: Callable[..., Tensor], rows: list[ScoredRow]) -> DenoisingScores:
        contents: list[Corruption] = [row.content for row in rows]
        clean, noise, level = self._clean(contents), self._noise(contents), self._mixing(contents)
        latents = level.corrupt(clean, noise)
        output = self._output(model, latents, level.time, contents)
        loss = (output - level.target(clean, noise)).square().flatten(1).mean(-1)
        if self.options.loss_weight is LossWeight.huber:
            loss = concave(loss)
        return DenoisingScores(-loss, output, latents, clean, level)

    def _key(self, trajectory: Trajectory, sample: int) -> int:
        """Of level and noise. A group's own does not depend on which of its samples are left."""
        if self.options.shared_noise:
            return derive_seed(trajectory.seed, trajectory.prompt_id)
        return int(trajectory.uid[sample])

    def _weight(self, level: Level) -> float:
        return level.sigma ** TIME_POWER[self.options.loss_weight]

    def _clean(self, contents: list[Corruption]) -> Tensor:
        return torch.stack([content.clean for content in contents]).to(self.device)

    def _noise(self, contents: list[Corruption]) -> Tensor:
        if self.inverting:
            inverted = [content.inverted for content in contents if content.inverted is not None]
            assert len(inverted) == len(contents), "rows of an inversion are scored before they were prepared"
            return torch.stack(inverted)
        key = torch.tensor([content.key for content in contents], device=self.device)
        counter = torch.tensor([content.counter for content in contents], device=self.device)
        return normal(key, contents[0].clean.shape, counter, Purpose.CORRUPTION)

    def _mixing(self, contents: list[Corruption]) -> MixingLevels:
        return MixingLevels.of(self.spec.prediction, [content.level for content in contents]).to(self.device)

    def _output(
        self, model: Callable[..., Tensor], latents: Tensor, time: Tensor, contents: list[Corruption]
    ) -> Tensor:
        condition = Condition.joined([content.condition for content in contents], self.device)
        scale = None if self.embedded_scale is None else torch.full_like(time, self.embedded_scale)
        return model(latents, time, condition.embeds, condition.pooled, scale, condition.user)


def recorded(trajectory: ImageTrajectory) -> tuple[Tensor, Condition]:
    """What a rollout ended with, and what conditioned it (an `Encode`)."""
    if trajectory.final is None or trajectory.embeds is None:
        raise TrajectoryError(
            f"trajectory of prompt {trajectory.prompt_id!r} has no clean latents or no embedded prompt: it is no "
            f"rollout; train on demonstrations with algorithm.advantage=constant"
        )
    pooled = None if trajectory.pooled is None else torch.from_numpy(trajectory.pooled)[None]
    condition = Condition(torch.from_numpy(trajectory.embeds)[None], pooled)
    return torch.from_numpy(trajectory.final), condition.of_user(trajectory.user)


def concave(loss: Tensor) -> Tensor:
    """((l + delta)^p - delta^p) / p, the generalised Huber loss of advantage-weighted matching (AWM, arXiv 2509.25050):
    its derivative (l + delta)^(p - 1) falls as the loss grows."""
    return ((loss + HUBER_OFFSET) ** HUBER_POWER - HUBER_OFFSET**HUBER_POWER) / HUBER_POWER


def _checked(trajectory: Trajectory) -> ImageTrajectory:
    if not isinstance(trajectory, ImageTrajectory):
        raise TrajectoryError(f"an image learner was given a {type(trajectory).__name__}")
    return trajectory
