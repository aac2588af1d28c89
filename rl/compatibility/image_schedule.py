"""Whether scheduler, kernel, window and forks of an image model go together."""

from __future__ import annotations

from configs.schema import Config
from models.images.spec import ImageSpec
from rl.algorithm.requirements import differentiates_reward
from rollout.images.kernels.window import window_steps
from rollout.images.sampler import Schedule
from rollout.images.step_candidates import candidate_steps
from rollout.options import KernelKind, RolloutOptions


def check_schedule(config: Config, spec: ImageSpec) -> None:
    """Raises a ValueError when scheduler, prediction, kernel, image size or window do not go together, in training or
    in an evaluation."""
    denoising = config.rollout.denoising
    schedule = Schedule(spec, denoising)
    Schedule(spec, denoising.greedy())
    rolls_out = not (config.algorithm.advantage.offline or differentiates_reward(config.algorithm))
    if rolls_out and denoising.kernel is not KernelKind.ode:
        window_steps(denoising.window, schedule.kernel.stochastic_steps, 0, 0)
        _check_shared_steps(config.rollout, schedule)


def _check_shared_steps(rollout: RolloutOptions, schedule: Schedule) -> None:
    """Raises a ValueError when samples would part, or candidates be drawn, where there is no noise."""
    drawn = list(schedule.kernel.stochastic_steps)
    if rollout.branching is not None:
        forks = {*rollout.branching.forks, *(rollout.branching.final_forks or ())}
        if not forks <= set(drawn):
            raise ValueError(
                f"rollout.branching has forks at {sorted(forks)}, but noise is drawn at {drawn}: move them"
            )
    if rollout.step_candidates is not None and not candidate_steps(rollout.step_candidates, schedule):
        raise ValueError(
            f"rollout.step_candidates.first_step={rollout.step_candidates.first_step}: noise is drawn at {drawn} only; "
            f"use an earlier step"
        )
