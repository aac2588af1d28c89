"""The samples of `denoiserl sample`."""

from __future__ import annotations

from typing import Any

from rl.data.tickets import derive_seed, sample_uid
from rollout.options import DenoisingOptions, SamplerOptions
from rollout.worker import Origin, RolloutRequest


def sample_request(
    run_seed: int,
    problem_ids: list[str],
    prompts: list[Any],
    count: int,
    sampler: SamplerOptions | DenoisingOptions,
) -> RolloutRequest:
    """The same samples whenever it is asked for."""
    seed = derive_seed(run_seed, "sample")
    return RolloutRequest(
        origin=Origin(0, 0, 0, seed),
        prompt_ids=tuple(problem_ids),
        prompts=tuple(prompts),
        uids=tuple(sample_uid(seed, group, sample) for group in range(len(prompts)) for sample in range(count)),
        sampler=sampler,
    )
