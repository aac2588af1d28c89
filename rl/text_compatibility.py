"""Options of a text model that cannot work together; each problem is one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from configs.schema import AdvantageKind, Config, KlEstimator, LikelihoodKind, LikelihoodOptions, Partition, Ratio
from rollout.options import Cache, Count, Order

if TYPE_CHECKING:  # models.text imports torch, which `denoiserl config` must not wait for
    from models.text import TextSpec

SAMPLER_AT_LEAST = {"temperature": 0, "top_k": 0, "max_new_tokens": 1, "rounds_per_block": 1, "block_length": 1}
PROBABILITY_ORDERS = (Order.max_prob, Order.drawn_prob, Order.drawn_raw_prob)
IMAGE_OPTIONS = ("noise_law", "loss_weight", "shared_noise", "inversion_steps", "unconditional_gradient")
GAUSSIAN_ESTIMATORS = (KlEstimator.exact, KlEstimator.flow_grpo)


def text_problems(config: Config, spec: TextSpec | None) -> Iterator[str]:
    """
    Args:
        spec: None leaves out what depends on the checkpoint.
    """
    yield from _sampler(config, spec)
    yield from _lengths(config, spec)
    yield from _likelihood(config)


def _likelihood(config: Config) -> Iterator[str]:
    algorithm, sampler = config.algorithm, config.rollout.sampler
    replay = algorithm.likelihood.kind is LikelihoodKind.replay
    supervised = algorithm.advantage is AdvantageKind.constant
    if supervised and config.data.train.response is None:
        yield "algorithm.advantage=constant trains on demonstrations; set data.train.response to a template of them"
    if not supervised and sampler.temperature == 0:
        yield (
            "rollout.sampler.temperature=0 is greedy: all samples of a group are equal and every log-probability is 0; "
            "use a temperature above 0"
        )
    if algorithm.ratio is Ratio.guard:
        yield "algorithm.ratio=guard is made of Gaussian steps, and text has none; use ratio=element"
    if algorithm.kl.estimator in GAUSSIAN_ESTIMATORS:
        yield f"algorithm.kl.estimator={algorithm.kl.estimator.name} is for Gaussian steps; text has k1, k2 and k3"
    for option in IMAGE_OPTIONS:
        if getattr(algorithm.likelihood, option) != getattr(LikelihoodOptions, option):
            yield f"algorithm.likelihood.{option} is for image models; leave it out"
    if algorithm.kl.estimator is KlEstimator.output:
        yield "algorithm.kl.estimator=output compares outputs of image models; text has k1, k2 and k3"
    order = sampler.order
    if replay and order.depends_on_draw and algorithm.likelihood.partition is not Partition.every_step:
        yield (
            f"rollout.sampler.order={order.name} reveals positions by the drawn tokens; its log-probability has a "
            f"correction that only likelihood.partition=every_step can compute; use that, or order=max_prob"
        )


def _sampler(config: Config, spec: TextSpec | None) -> Iterator[str]:
    name, sampler = "rollout.sampler", config.rollout.sampler
    for option, least in SAMPLER_AT_LEAST.items():
        value = getattr(sampler, option)
        if value is not None and value < least:
            yield f"{name}.{option}={value}: must be at least {least}"
    if not 0 < sampler.top_p <= 1:
        yield f"{name}.top_p={sampler.top_p}: must lie in (0, 1]; 1 keeps every token"
    if sampler.count in (Count.threshold, Count.factor) and sampler.order not in PROBABILITY_ORDERS:
        yield (
            f"{name}.count={sampler.count.name} compares scores with probabilities, but "
            f"order={sampler.order.name} does not rank by one; use order=max_prob"
        )
    if sampler.count is Count.entropy_bound and sampler.order is not Order.entropy:
        yield f"{name}.count=entropy_bound sums entropies in the order of entropy; use order=entropy"
    if spec is None:
        return
    if sampler.cache is Cache.block and spec.block_length is None:
        yield (
            f"{name}.cache=block: {spec.family} is bidirectional, its finished blocks change with every new token, "
            f"so a cache would not be exact; use cache=none"
        )
    if spec.block_length is not None and sampler.block_length not in (None, spec.block_length):
        yield (
            f"{name}.block_length={sampler.block_length}: this checkpoint's attention has blocks of "
            f"{spec.block_length}; use block_length=null"
        )
    block = spec.block_length or sampler.block_length or sampler.max_new_tokens
    if sampler.count is Count.quota and (sampler.rounds_per_block or 0) > block:
        yield (
            f"{name}.rounds_per_block={sampler.rounds_per_block}: a block of {block} tokens has at most {block} "
            f"rounds; use null for one token a round"
        )


def _lengths(config: Config, spec: TextSpec | None) -> Iterator[str]:
    if spec is None:
        return
    name, sampler = "rollout.sampler", config.rollout.sampler
    prompt, new = config.data.max_prompt_tokens, sampler.max_new_tokens
    block = spec.block_length or 1
    positions = -(-(prompt + new) // block) * block  # the terminal block is kept whole
    if positions > spec.max_length:
        yield (
            f"data.max_prompt_tokens={prompt} and {name}.max_new_tokens={new} need {positions} positions, "
            f"{spec.family} has {spec.max_length}; lower one of them"
        )
