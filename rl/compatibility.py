"""Options that cannot work together, found before anything starts.

Each check yields one sentence for each problem: the options, why they cannot work, what to do instead.
Ranges of single options come first, then the rollout, the algorithm, the data, the cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import TYPE_CHECKING

from configs.errors import ConfigError
from configs.schema import (
    AdvantageKind,
    Config,
    Denominator,
    LikelihoodKind,
    ObjectiveKind,
    Partition,
    Ratio,
    SourceKind,
    SourceOptions,
)
from rollout.options import Cache, Count, Order

if TYPE_CHECKING:  # models.text imports torch, which `denoiserl config` must not wait for
    from models.text import TextSpec

AT_LEAST = {
    "algorithm.likelihood.shrink": 1,
    "algorithm.likelihood.segments": 1,
    "algorithm.clip": 0,
    "algorithm.clip_high": 0,
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
    "evaluation.prompts_per_ticket": 1,
    "model.lora.rank": 1,
    "rollout.group_size": 1,
    "rollout.prompts_per_update": 1,
    "rollout.prompts_per_ticket": 1,
    "rollout.max_staleness": 0,
    "cluster.learners": 1,
    "cluster.rollout_workers": 1,
    "cluster.reward_workers": 1,
    "cluster.cpus": 0,
    "cluster.threads": 1,
    "run.updates": 1,
    "run.checkpoint_every": 0,
    "run.keep_checkpoints": 1,
    "run.keep_trajectories": 0,
}
ABOVE_ZERO = (
    "algorithm.optimizer.learning_rate",
    "algorithm.optimizer.eps",
    "algorithm.optimizer.max_grad_norm",
    "reward.timeout_seconds",
    "rollout.timeout_seconds",
    "cluster.startup_timeout_seconds",
    "cluster.step_timeout_seconds",
)
SAMPLER_AT_LEAST = {"temperature": 0, "top_k": 0, "max_new_tokens": 1, "rounds_per_block": 1, "block_length": 1}
PROBABILITY_ORDERS = (Order.max_prob, Order.drawn_prob, Order.drawn_raw_prob)


def check(config: Config, spec: TextSpec | None) -> None:
    """Refuses a configuration that cannot train.

    Args:
        spec: the loaded model's facts; None checks what can be known without the model.

    Raises:
        ConfigError: every problem found, one a line.
    """
    problems = [*_ranges(config), *_sampler(config, spec), *_lengths(config, spec)]
    problems += [*_algorithm(config), *_rollout(config), *_data(config), *_evaluation(config), *_cluster(config)]
    if problems:
        raise ConfigError("\n  ".join(["these options cannot work:", *problems]))


def is_supervised(config: Config) -> bool:
    """Training on demonstrations: no rollouts, no rewards in the loss."""
    return config.algorithm.advantage is AdvantageKind.constant


def _ranges(config: Config) -> Iterator[str]:
    for path, least in AT_LEAST.items():
        value = _get(config, path)
        if value is not None and value < least:
            yield f"{path}={value}: must be at least {least}"
    for path in ABOVE_ZERO:
        value = _get(config, path)
        if value is not None and value <= 0:
            yield f"{path}={value}: must be above 0"
    betas = config.algorithm.optimizer.betas
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        yield f"algorithm.optimizer.betas={list(betas)}: must be two numbers in [0, 1)"
    if not 0 <= config.reward.max_failed_fraction <= 1:
        yield f"reward.max_failed_fraction={config.reward.max_failed_fraction}: must lie in [0, 1]"


def _get(config: Config, path: str) -> float | None:
    """Value at a dotted path; None when a section on the way is null."""
    section, _, name = path.rpartition(".")
    parent = attrgetter(section)(config)
    return None if parent is None else getattr(parent, name)


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


def _algorithm(config: Config) -> Iterator[str]:
    algorithm = config.algorithm
    supervised = is_supervised(config)
    replay = algorithm.likelihood.kind is LikelihoodKind.replay
    if algorithm.objective is ObjectiveKind.ppo_clip and algorithm.ratio is Ratio.none:
        yield "algorithm.objective=ppo_clip clips a ratio, but ratio=none; use ratio=element or objective=weighted"
    if algorithm.objective is ObjectiveKind.weighted and algorithm.ratio is not Ratio.none:
        yield f"algorithm.objective=weighted has no ratio, but ratio={algorithm.ratio.name}; use ratio=none"
    if supervised and algorithm.objective is not ObjectiveKind.weighted:
        yield "algorithm.advantage=constant is supervised training and needs objective=weighted and ratio=none"
    if supervised and config.data.train.response is None:
        yield "algorithm.advantage=constant trains on demonstrations; set data.train.response to a template of them"
    if supervised and replay:
        yield "algorithm.likelihood.kind=replay needs rollouts, and advantage=constant makes none; use kind=elbo"
    if not supervised and not replay:
        yield "algorithm.likelihood.kind=elbo is for supervised training; use kind=replay, or algorithm=sft"
    if not replay and algorithm.kl.coefficient > 0:
        yield "algorithm.kl.coefficient: the KL term is computed on a replayed chain; with likelihood.kind=elbo use 0"
    if not replay and algorithm.denominator is Denominator.step:
        yield "algorithm.denominator=step averages over the parts of a replay; with likelihood.kind=elbo use sequence"
    order = config.rollout.sampler.order
    if replay and order.depends_on_draw and algorithm.likelihood.partition is not Partition.every_step:
        yield (
            f"rollout.sampler.order={order.name} reveals positions by the drawn tokens; its log-probability has a "
            f"correction that only likelihood.partition=every_step can compute; use that, or order=max_prob"
        )


def _rollout(config: Config) -> Iterator[str]:
    rollout, algorithm = config.rollout, config.algorithm
    if rollout.prompts_per_ticket > 0 and rollout.prompts_per_update % rollout.prompts_per_ticket:
        yield (
            f"rollout.prompts_per_update={rollout.prompts_per_update} is no multiple of "
            f"prompts_per_ticket={rollout.prompts_per_ticket}; an update consists of whole tickets"
        )
    if algorithm.minibatches > rollout.prompts_per_update:
        yield (
            f"algorithm.minibatches={algorithm.minibatches} is more than "
            f"rollout.prompts_per_update={rollout.prompts_per_update}; some minibatches would be empty"
        )
    if is_supervised(config):
        return
    if rollout.group_size == 1:
        yield (
            f"rollout.group_size=1: a group of one has no spread, advantage={algorithm.advantage.name} would be zero "
            f"for every sample; use at least 2"
        )
    if rollout.sampler.temperature == 0:
        yield (
            "rollout.sampler.temperature=0 is greedy: all samples of a group are equal and every log-probability is 0; "
            "use a temperature above 0"
        )
    if not config.reward.terms:
        yield "reward.terms is empty, there is nothing to learn from; choose a file, for example reward=math"


def _data(config: Config) -> Iterator[str]:
    train, evaluation = config.data.train, config.data.evaluation
    for name, source in (("data.train", train), ("data.evaluation", evaluation)):
        if source is not None and source.kind is SourceKind.reasoning_gym and source.size is None:
            yield f"{name}.size=null: reasoning-gym makes problems without end; set a number"
    if evaluation is not None and _overlap(train, evaluation):
        yield (
            "data.evaluation has the training problems in it; use another split or file, or for reasoning-gym a seed "
            f"of at least {train.seed + (train.size or 0)} (problem i comes from seed + i)"
        )


def _overlap(first: SourceOptions, second: SourceOptions) -> bool:
    if (first.kind, first.name, first.args) != (second.kind, second.name, second.args):
        return False
    if first.kind is SourceKind.reasoning_gym:
        end_of_first, end_of_second = first.seed + (first.size or 0), second.seed + (second.size or 0)
        return first.seed < end_of_second and second.seed < end_of_first
    return first.split == second.split


def _evaluation(config: Config) -> Iterator[str]:
    evaluation = config.evaluation
    if evaluation.every == 0:
        return
    if config.data.evaluation is None:
        yield "evaluation.every is above 0, but data.evaluation is null; set data.evaluation.name or evaluation.every=0"
    if not config.reward.terms and is_supervised(config):
        yield "evaluation.every is above 0, but reward.terms is empty; choose a reward or set evaluation.every=0"


def _cluster(config: Config) -> Iterator[str]:
    cluster, rollout = config.cluster, config.rollout
    for name in ("learner_gpus", "rollout_gpus"):
        if getattr(cluster, name) not in (0, 1):
            yield f"cluster.{name}={getattr(cluster, name)}: a process drives 0 or 1 GPU; start more processes"
    if cluster.zero_stage not in range(4):
        yield f"cluster.zero_stage={cluster.zero_stage}: DeepSpeed has stages 0, 1, 2 and 3"
    samples = rollout.prompts_per_update * (1 if is_supervised(config) else rollout.group_size)
    if samples < cluster.learners:
        yield (
            f"cluster.learners={cluster.learners} is more than the {samples} samples of an update; use fewer learners "
            f"or a larger rollout.prompts_per_update"
        )
