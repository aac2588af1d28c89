"""Samples of tiny policies, as the rollout makes them."""

from __future__ import annotations

import numpy as np

from models.text.policy import TextPolicy
from rollout.options import SamplerOptions
from rollout.text.groups import to_trajectories
from rollout.text.record import Samples
from rollout.text.sampler import Sampler
from rollout.trajectory import TextTrajectory
from rollout.worker import Origin

ORIGIN = Origin(ticket=3, update=1, version=1, seed=77)


def prompts_of(lengths: list[int], words: int = 7, seed: int = 0) -> list[np.ndarray]:
    """Random ordinary tokens; the stop token is `words` and never among them."""
    generator = np.random.default_rng(seed)
    return [generator.integers(0, words, length).astype(np.int32) for length in lengths]


def sample(
    policy: TextPolicy,
    options: SamplerOptions,
    prompts: list[np.ndarray],
    group_size: int = 1,
    first_uid: int = 1000,
    proposals: bool = False,
) -> Samples:
    rows = [prompt for prompt in prompts for _ in range(group_size)]
    index = [i for i in range(len(prompts)) for _ in range(group_size)]
    return Sampler(policy, options, proposals).sample(rows, [first_uid + row for row in range(len(rows))], index)


def roll_out(
    policy: TextPolicy,
    options: SamplerOptions,
    prompts: list[np.ndarray],
    group_size: int = 1,
    first_uid: int = 1000,
    proposals: bool = False,
) -> list[TextTrajectory]:
    samples = sample(policy, options, prompts, group_size, first_uid, proposals)
    names = [f"prompt-{index}" for index in range(len(prompts))]
    uids = [first_uid + row for row in range(len(prompts) * group_size)]
    return to_trajectories(samples, ORIGIN, names, prompts, uids, group_size, options)
