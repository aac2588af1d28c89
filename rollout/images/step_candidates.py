"""Candidates for each next latent, drawn from one state: every step of an image's chain is a group of its own.

A candidate is judged by what becomes of it without further noise, and the chain goes on from one of them at random. The
samples of a group then differ by a single decision, so its reward is no sum over a chain (SPO, arXiv 2406.04314;
TempFlow-GRPO, which finishes each candidate by the ODE).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rollout.images.guidance import Conditions
from rollout.images.sampler import ImageSampler, Schedule
from rollout.noise import Purpose, uniform
from rollout.options import Finish, StepCandidateOptions


@dataclass(frozen=True)
class Candidates:
    """Of P prompts, S steps and G candidates each, on the CPU."""

    states: np.ndarray
    """(P, S, G, 2, C, h, w) fp32: the state that the candidates of a step share, and each of them"""
    logp: np.ndarray
    """(P, S, G) fp64"""
    clean: np.ndarray
    """(P, S, G, C, h, w) fp32 clean latents that each is judged by"""
    forwards: np.ndarray
    """(S,) rows that the network ran for each step of a prompt; other steps count with the next one"""
    halves: float
    """The same of all steps, with two for a row with classifier-free guidance"""


def candidate_steps(options: StepCandidateOptions, schedule: Schedule) -> tuple[int, ...]:
    """Those from the first one on that draw noise; the last step of a schedule does not."""
    return tuple(step for step in schedule.kernel.stochastic_steps if step >= options.first_step)


@torch.no_grad()
def draw_candidates(
    sampler: ImageSampler, conditions: Conditions, uids: Tensor, options: StepCandidateOptions
) -> Candidates:
    """
    Args:
        conditions: of P prompts.
        uids: (P, G) int64 noise keys of the candidates; the first one also draws the steps before, and who goes on.
    """
    schedule, kernel = sampler.schedule, sampler.schedule.kernel
    steps = candidate_steps(options, schedule)
    prompts, count = uids.shape
    uids = uids.to(sampler.device)
    each = torch.arange(prompts, device=sampler.device)
    of_all = conditions.take(each.repeat_interleave(count))
    latents = sampler.start(uids[:, 0])
    output = sampler.output(conditions, latents, 0)
    rows = np.zeros((len(steps), schedule.options.steps))  # that the network ran, of a prompt, for each step's level
    rows[0, 0] = 1
    states: list[Tensor] = []
    logp: list[Tensor] = []
    clean: list[Tensor] = []
    for step in range(steps[-1] + 1):
        if step not in steps:
            latents = sampler.advance(latents, output, step, uids[:, 0] if kernel.stochastic[step] else None)
            output = sampler.output(conditions, latents, step + 1)
            rows[len(states), step + 1] += 1
            continue
        before, shared = latents.repeat_interleave(count, 0), output.repeat_interleave(count, 0)
        after = sampler.advance(before, shared, step, uids.flatten())
        following = sampler.output(of_all, after, step + 1)
        judged, place = following, after
        group = len(states)
        rows[group, step + 1] += count
        if options.finish is Finish.ode:
            for later in range(step + 1, schedule.options.steps - 1):
                place = sampler.advance(place, judged, later, None)
                judged = sampler.output(of_all, place, later + 1)
                rows[group, later + 1] += count
        level = schedule.options.steps - 1 if options.finish is Finish.ode else step + 1
        states.append(torch.stack([before, after], dim=1))
        logp.append(kernel.log_prob(after, kernel.mean(before, shared, step), step))
        clean.append(kernel.denoised(place, judged, level))
        chosen = each * count + (count * uniform(uids[:, 0], each * 0, each * 0 + step, Purpose.ORDER)).long()
        latents, output = after[chosen], following[chosen]

    def grouped(values: list[Tensor]) -> np.ndarray:
        return torch.stack([v.unflatten(0, (prompts, count)) for v in values], dim=1).cpu().numpy()

    halves = float((rows.sum(0) * np.where(schedule.guided, 2, 1)).sum() * prompts)
    return Candidates(grouped(states), grouped(logp).astype(np.float64), grouped(clean), rows.sum(1), halves)
