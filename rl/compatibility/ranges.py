"""Smallest and largest values of single options; each problem is one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from math import isfinite
from typing import Any

from configs.fields import leaves, type_of, without_none
from configs.schema import Config

AT_LEAST = {
    "algorithm.likelihood.shrink": 1,
    "algorithm.likelihood.segments": 1,
    "algorithm.likelihood.sampled_parts": 1,
    "algorithm.likelihood.prompt_masking": 0,
    "algorithm.likelihood.draws": 1,
    "algorithm.likelihood.full_view": 0,
    "algorithm.likelihood.canvas_block": 1,
    "algorithm.likelihood.block_length": 1,
    "algorithm.likelihood.inversion_steps": 1,
    "algorithm.clip": 0,
    "algorithm.clip_high": 0,
    "algorithm.selected_steps": 1,
    "algorithm.extreme_samples": 1,
    "algorithm.running.buffer": 1,
    "algorithm.running.minimum": 1,
    "algorithm.value.discount": 0,
    "algorithm.value.gae_lambda": 0,
    "algorithm.value.passes": 1,
    "algorithm.value.optimizer.warmup_updates": 0,
    "algorithm.value.optimizer.weight_decay": 0,
    "algorithm.kl.coefficient": 0,
    "algorithm.minibatches": 1,
    "algorithm.epochs": 1,
    "algorithm.micro_batch_tokens": 1,
    "algorithm.optimizer.warmup_updates": 0,
    "algorithm.optimizer.weight_decay": 0,
    "data.max_prompt_tokens": 1,
    "data.train.size": 1,
    "data.evaluation.size": 1,
    "evaluation.every": 0,
    "evaluation.samples": 0,
    "evaluation.images_per_prompt": 1,
    "evaluation.prompts_per_ticket": 1,
    "model.lora.rank": 1,
    "model.prompt_segments": 1,
    "model.user_adapter.dimension": 1,
    "rollout.group_size": 1,
    "rollout.prompts_per_update": 1,
    "rollout.prompts_per_ticket": 1,
    "rollout.max_staleness": 0,
    "rollout.refills": 0,
    "algorithm.anchor": 0,
    "cluster.learners": 1,
    "cluster.rollout_workers": 1,
    "cluster.reward_workers": 1,
    "cluster.cpus": 0,
    "cluster.threads": 1,
    "run.updates": 1,
    "run.checkpoint_every": 0,
    "run.keep_checkpoints": 1,
    "run.snapshot_gib": 0,
    "run.keep_trajectories": 0,
}
ABOVE_ZERO = (
    "algorithm.advantage_clip",
    "algorithm.advantage_epsilon",
    "algorithm.beta",
    "algorithm.clip_kl",
    "algorithm.anchor_growth",
    "algorithm.extremes",
    "algorithm.least_difference",
    "algorithm.value.clip",
    "algorithm.value.optimizer.learning_rate",
    "algorithm.value.optimizer.eps",
    "algorithm.value.optimizer.max_grad_norm",
    "algorithm.optimizer.learning_rate",
    "algorithm.optimizer.eps",
    "algorithm.optimizer.max_grad_norm",
    "model.user_adapter.scale",
    "reward.timeout_seconds",
    "rollout.timeout_seconds",
    "cluster.startup_timeout_seconds",
    "cluster.step_timeout_seconds",
)


def option_ranges(config: Config) -> Iterator[str]:
    yield from _not_finite(config)
    for path, least in AT_LEAST.items():
        value = _get(config, path)
        if value is not None and value < least:
            yield f"{path}={value}: must be at least {least}"
    for path in ABOVE_ZERO:
        value = _get(config, path)
        if value is not None and value <= 0:
            yield f"{path}={value}: must be above 0"
    for path in ("algorithm.optimizer.betas", "algorithm.value.optimizer.betas"):
        betas = _get(config, path)
        if betas is not None and (len(betas) != 2 or not all(0 <= beta < 1 for beta in betas)):
            yield f"{path}={list(betas)}: must be two numbers in [0, 1)"
    likelihood = config.algorithm.likelihood
    if likelihood.prompt_masking > 1:
        yield f"algorithm.likelihood.prompt_masking={likelihood.prompt_masking}: a probability is at most 1"
    rates = likelihood.rate_range
    if len(rates) != 2 or not 0 < rates[0] <= rates[1] <= 1:
        yield (
            f"algorithm.likelihood.rate_range={list(rates)}: must be two numbers above 0 and at most 1, the lower first"
        )
    if not 0 <= config.reward.max_failed_fraction <= 1:
        yield f"reward.max_failed_fraction={config.reward.max_failed_fraction}: must lie in [0, 1]"


def _not_finite(config: Config) -> Iterator[str]:
    """No comparison with NaN is true, so that it passes every range; infinity overflows where it is used. What a task
    or a function of the user's is given as `args` is theirs."""
    for path, value in leaves(asdict(config)).items():
        values = value if isinstance(value, list | tuple) else [value]
        if ".args" not in path and any(isinstance(each, float) and not isfinite(each) for each in values):
            unset = ", or null" if without_none(hint := type_of(path)) != hint else ""
            yield f"{path}={value}: must be a finite number{unset}"


def _get(config: Config, path: str) -> Any:
    """Value at a dotted path; None when a section on the way is null."""
    here: Any = config
    for name in path.split("."):
        here = None if here is None else getattr(here, name)
    return here
