"""The likelihood of an image model's recorded steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from configs.algorithm_options import LikelihoodOptions
from models.images.spec import Condition, ImageSpec
from rl.algorithm.gaussian_scores import GaussianScores
from rl.algorithm.scored_rows import ScoredRow
from rl.likelihood.protocol import OwnDecisions
from rollout.images.guidance import Conditions, guided_output
from rollout.images.sampler import Schedule
from rollout.options import DenoisingOptions, Reduction
from rollout.trajectory import ImageTrajectory, Trajectory, TrajectoryError, contract


@dataclass(frozen=True)
class Step:
    """One denoising step of one sample."""

    trajectory: ImageTrajectory
    sample: int
    place: int
    """In the stored span."""


class ImageReplay(OwnDecisions):
    """log p(x_k+1 | x_k) of every trained step, by the kernel that drew it (DDPO, arXiv 2305.13301, section 4.3)."""

    exact = True
    draws = 1
    overlapping = False
    fresh_noise = False

    @property
    def gap_scale(self) -> float:
        root = math.prod(self.schedule.shape) ** 0.5
        return 1 / root if self.schedule.options.log_prob is Reduction.sum else root

    def __init__(
        self, spec: ImageSpec, sampler: DenoisingOptions, options: LikelihoodOptions, device: torch.device
    ) -> None:
        self.schedule = Schedule(spec, sampler)
        self.options = options
        self.device = device

    def rows(self, trajectories: Sequence[Trajectory], draw: int) -> list[ScoredRow]:
        rows = []
        for index, trajectory in enumerate(trajectories):
            trajectory = self._checked(trajectory)
            tokens = self.schedule.tokens * (2 if trajectory.guided.any() else 1)
            for sample, place in zip(*trajectory.mask.nonzero(), strict=True):
                decision = np.array([place])
                content = Step(trajectory, int(sample), int(place))
                step = decision + trajectory.first_step
                rows.append(ScoredRow(content, index, int(sample), decision, np.ones(1, np.float32), step, tokens))
        return rows

    def prepare(self, model: Callable[..., Tensor], rows: list[ScoredRow]) -> None:
        """Nothing: the steps are recorded."""

    def score(self, model: Callable[..., Tensor], rows: list[ScoredRow]) -> GaussianScores:
        contents: list[Step] = [row.content for row in rows]
        latents, following = self._latents(contents, 0), self._latents(contents, 1)
        step = _steps(contents)
        guided = [bool(c.trajectory.guided[c.place]) for c in contents]
        output = guided_output(
            model,
            latents,
            self._times(step),
            self._conditions([c.trajectory for c in contents], guided),
            self.schedule.options.guidance,
            torch.tensor(guided, device=self.device),
            self.options.unconditional_gradient,
        )
        mean = self.schedule.kernel.mean(latents, output, step)
        uid = torch.tensor([int(c.trajectory.uid[c.sample]) for c in contents], device=self.device)
        return GaussianScores(self.schedule.kernel, mean, following, step, uid)

    def values(self, model: Callable[..., Tensor], rows: list[ScoredRow]) -> Tensor:
        """(rows,) fp32 values of `models.images.value.ImageValue`, of the latents before each step."""
        contents: list[Step] = [row.content for row in rows]
        embeds = self._tensor([c.trajectory.embeds for c in contents])
        return model(self._latents(contents, 0), self._times(_steps(contents)), embeds)

    def _latents(self, contents: list[Step], after: int) -> Tensor:
        """(B, C, h, w) before the steps, or after them (1)."""
        return self._tensor([c.trajectory.latents[c.sample, c.place + after] for c in contents])  # type: ignore[index]

    def _times(self, step: Tensor) -> Tensor:
        """(B,) fp32 what a network is told."""
        times = torch.tensor([level.time for level in self.schedule.levels], dtype=torch.float32)
        return times[step].to(self.device)

    def _conditions(self, trajectories: list[ImageTrajectory], guided: list[bool]) -> Conditions:
        empty = None
        if any(guided):
            empty = self._condition([(t.unconditional_embeds, t.unconditional_pooled, None) for t in trajectories])
        prompt = self._condition([(t.embeds, t.pooled, t.user) for t in trajectories])
        return Conditions(prompt, empty, self.schedule.embedded_scale)

    def _condition(self, arrays: list[tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]]) -> Condition:
        """Of the rows' (embeds, pooled, user)."""
        embeds, pooled, user = zip(*arrays, strict=True)
        return Condition(
            self._tensor(embeds),
            None if pooled[0] is None else self._tensor(pooled),
            None if user[0] is None else self._tensor(user),
        )

    def _tensor(self, arrays: Sequence[np.ndarray | np.generic | int | None]) -> Tensor:
        return torch.from_numpy(np.stack(arrays)).to(self.device)  # type: ignore[arg-type]

    def _checked(self, trajectory: Trajectory) -> ImageTrajectory:
        if not isinstance(trajectory, ImageTrajectory):
            raise TrajectoryError(f"an image learner was given a {type(trajectory).__name__}")
        where = f"trajectory of prompt {trajectory.prompt_id!r}"
        if trajectory.sampler != contract(self.schedule.options):
            raise TrajectoryError(
                f"{where} was sampled under another contract than this replay:\n"
                f"  recorded {trajectory.sampler}\n  replay   {contract(self.schedule.options)}\n"
                f"Use the run's own configuration, or roll out again."
            )
        if not np.array_equal(trajectory.levels, self.schedule.level_array()):
            raise TrajectoryError(
                f"{where} was sampled on other noise levels than this model's scheduler makes; load the same pipeline "
                f"folder in rollout and learner"
            )
        if trajectory.latents is None:
            raise TrajectoryError(f"{where} has no recorded steps to replay")
        return trajectory


def _steps(contents: list[Step]) -> Tensor:
    """(B,) int64 places in the schedule, on the host, where the kernel's numbers are."""
    return torch.tensor([c.trajectory.first_step + c.place for c in contents])
