"""Options of a text model that cannot work together; each problem is one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from configs.algorithm_options import (
    KlEstimator,
    LikelihoodKind,
    LikelihoodOptions,
    MaskLaw,
    ObjectiveKind,
    Partition,
    Ratio,
)
from configs.schema import Config
from models.options import TrainedPart
from rollout.options import Cache, Count, Order, Remask

if TYPE_CHECKING:  # models.text.policy imports torch, which `denoiserl config` must not wait for
    from models.text.spec import TextSpec

SAMPLER_AT_LEAST = {
    "temperature": 0,
    "top_k": 0,
    "max_new_tokens": 1,
    "rounds_per_block": 1,
    "least_per_round": 1,
    "block_length": 1,
}
CERTAINTIES = (Order.max_prob, Order.entropy, Order.margin, Order.drawn_prob, Order.drawn_raw_prob)
PROBABILITY_ORDERS = (Order.max_prob, Order.drawn_prob, Order.drawn_raw_prob)
EXACT_PARTITIONS = (Partition.every_step, Partition.left_to_right)
GAUSSIAN_ESTIMATORS = (KlEstimator.exact, KlEstimator.flow_grpo)


def text_problems(config: Config, spec: TextSpec | None) -> Iterator[str]:
    """
    Args:
        spec: None leaves out what depends on the checkpoint.
    """
    yield from _sampler(config, spec)
    yield from _lengths(config, spec)
    yield from _likelihood(config)
    if config.algorithm.likelihood.kind is LikelihoodKind.elbo:
        yield from _masks(config.algorithm.likelihood, config.algorithm.epochs)
    yield from _attention(config.algorithm.likelihood, spec)


def _likelihood(config: Config) -> Iterator[str]:
    algorithm, sampler = config.algorithm, config.rollout.sampler
    replay = algorithm.likelihood.kind is LikelihoodKind.replay
    if algorithm.likelihood.kind is LikelihoodKind.reward_gradient:
        yield (
            "algorithm.likelihood.kind=reward_gradient differentiates a reward in the pixels of an image; tokens of a "
            "text have no such derivative: use kind=replay"
        )
    if config.model.train is not TrainedPart.network:
        yield f"model.train={config.model.train.name} is a part of image models; for text use network"
    if not algorithm.advantage.offline and sampler.temperature == 0:
        yield (
            "rollout.sampler.temperature=0 is greedy: all samples of a group are equal and every log-probability is 0; "
            "use a temperature above 0"
        )
    if config.evaluation.images_per_prompt != 1:
        yield (
            f"evaluation.images_per_prompt={config.evaluation.images_per_prompt} is for images, as greedy completions "
            f"of a text are all the same: use 1, and evaluation.samples for sampled ones"
        )
    if algorithm.objective is ObjectiveKind.nft:
        yield "algorithm.objective=nft compares the outputs of image networks; for text use objective=weighted"
    if algorithm.ratio is Ratio.guard:
        yield "algorithm.ratio=guard is made of Gaussian steps, and text has none; use ratio=element"
    if algorithm.kl.estimator in GAUSSIAN_ESTIMATORS:
        yield f"algorithm.kl.estimator={algorithm.kl.estimator.name} is for Gaussian steps; use k1, k2 or k3 for text"
    if algorithm.kl.estimator is KlEstimator.output:
        yield "algorithm.kl.estimator=output compares outputs of image models; use k1, k2 or k3 for text"
    yield from _remasking(config)
    proposals = algorithm.likelihood.kind is LikelihoodKind.proposals
    if proposals and (sampler.top_k > 0 or sampler.top_p < 1):
        yield (
            f"algorithm.likelihood.kind=proposals records no truncated distributions, which would be one for every "
            f"position of every round; use rollout.sampler.top_k=0 and top_p=1 (top_k={sampler.top_k}, "
            f"top_p={sampler.top_p})"
        )
    order = sampler.order
    if replay and order.depends_on_draw and algorithm.likelihood.partition is not Partition.every_step:
        yield (
            f"rollout.sampler.order={order.name} reveals positions by the drawn tokens; its log-probability has a "
            f"correction that only likelihood.partition=every_step can compute; use that, or order=max_prob"
        )
    if replay and order.depends_on_draw and algorithm.likelihood.block_length is not None:
        yield (
            f"rollout.sampler.order={order.name} reveals positions by the drawn tokens of the generating block, which "
            f"likelihood.block_length={algorithm.likelihood.block_length} cannot tell apart; use order=max_prob"
        )
    if replay and algorithm.likelihood.prompt_masking > 0 and algorithm.likelihood.partition in EXACT_PARTITIONS:
        yield (
            f"algorithm.likelihood.prompt_masking={algorithm.likelihood.prompt_masking} hides what the samples were "
            f"made from, and partition={algorithm.likelihood.partition.name} is there to be exact; use partition=one, "
            f"segments or shrink"
        )


def _remasking(config: Config) -> Iterator[str]:
    """Tokens that may be masked again."""
    sampler = config.rollout.sampler
    if sampler.remask is Remask.none:
        return
    name = f"rollout.sampler.remask={sampler.remask.name}"
    if config.algorithm.likelihood.kind is LikelihoodKind.replay:
        yield (
            f"{name} may reveal a position more than once, and a replay scores it once; use "
            f"algorithm.likelihood.kind=proposals (algorithm=mdpo) or elbo, or remask=none"
        )
    if sampler.count is not Count.quota:
        yield f"{name} masks what later rounds' quotas will reveal, and count={sampler.count.name} has none; use quota"
    if sampler.order not in CERTAINTIES:
        yield f"{name} keeps what the model is certain of, and order={sampler.order.name} does not say; use max_prob"
    if sampler.top_k > 0 or sampler.top_p < 1:
        yield (
            f"{name} keeps no truncated distributions, without which the rollout cannot be checked; use top_k=0 and "
            f"top_p=1 (top_k={sampler.top_k}, top_p={sampler.top_p})"
        )


def _masks(options: LikelihoodOptions, epochs: int) -> Iterator[str]:
    """The law of the denoising loss."""
    name = "algorithm.likelihood"
    low, high = options.rate_range if len(options.rate_range) == 2 else (0.0, 1.0)
    by_rate = options.mask_law is MaskLaw.uniform_rate
    if not by_rate and list(options.rate_range) != list(LikelihoodOptions().rate_range):
        yield f"{name}.rate_range bounds a rate, and mask_law=exact_count draws a number; use mask_law=uniform_rate"
    if options.complement and by_rate and abs(low + high - 1) > 1e-9:
        yield (
            f"{name}.complement=true needs rates that are as likely as their complements, and rate_range="
            f"[{low}, {high}] is not centred on 1/2; use for example [0.2, 0.8], or mask_law=exact_count"
        )
    if options.rising_rate and options.complement:
        yield f"{name}.rising_rate=true ends with everything masked, whose complement is empty; use complement=false"
    if options.rising_rate and epochs == 1:
        yield f"{name}.rising_rate=true rises over the epochs of an update; set algorithm.epochs to at least 2"
    if options.full_view > 0 and options.canvas_block is not None:
        yield f"{name}.full_view adds the fully masked text, of which canvas_block shows a part; use one of them"


def _attention(options: LikelihoodOptions, spec: TextSpec | None) -> Iterator[str]:
    """What the model's attention rules out."""
    name = "algorithm.likelihood"
    if spec is None:
        return
    if spec.block_length is None:
        if options.block_length is not None:
            yield f"{name}.block_length: {spec.family} is bidirectional and has no attention blocks; leave it out"
        return
    if options.block_length is not None and options.block_length % spec.block_length:
        yield (
            f"{name}.block_length={options.block_length}: a larger block must hold whole ones of {spec.block_length}, "
            f"which this model generates with; use a multiple"
        )
    if options.prompt_masking > 0:
        yield (
            f"{name}.prompt_masking={options.prompt_masking}: {spec.family} is block-causal and has never seen a MASK "
            f"in its clean text; use a bidirectional model, such as model=tiny_full, or prompt_masking=0"
        )
    if options.canvas_block is not None:
        yield (
            f"{name}.canvas_block={options.canvas_block}: {spec.family} has blocks of its own and scores all of them "
            f"in one forward; use a bidirectional model, such as model=tiny_full, or canvas_block=null"
        )


def attention_of(options: LikelihoodOptions) -> str:
    """Of the text models that the options are for; empty if of any."""
    if options.prompt_masking > 0 or options.canvas_block is not None:
        return "bidirectional"
    return "" if options.block_length is None else "block-causal"


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
    if sampler.count in (Count.entropy_bound, Count.entropy_sum) and sampler.order is not Order.entropy:
        yield f"{name}.count={sampler.count.name} sums entropies in the order of entropy; use order=entropy"
    if sampler.count is Count.quota and sampler.least_per_round is not None:
        yield (
            f"{name}.least_per_round={sampler.least_per_round} is for rules that look at scores, and count=quota says "
            f"itself how many; use rounds_per_block"
        )
    if spec is None:
        return
    if sampler.cache is Cache.block and spec.block_length is None:
        yield (
            f"{name}.cache=block: {spec.family} is bidirectional, its finished blocks change with every new token, "
            f"so a cache would not be exact; use cache=none"
        )
    if spec.block_length is not None and sampler.remask is not Remask.none:
        yield (
            f"{name}.remask={sampler.remask.name}: {spec.family} is block-causal, what follows a block was made from "
            f"its tokens, and its cache from them too; use remask=none, or a bidirectional model"
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
