"""Options that cannot work together, found before anything starts.

Each check yields one sentence for each problem: the options, why they cannot work, what to do instead.
Ranges of single options come first, then the rollout, the algorithm, the data, the cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import TYPE_CHECKING, cast

from configs.errors import ConfigError
from configs.schema import (
    AdvantageKind,
    Config,
    Denominator,
    LikelihoodKind,
    ObjectiveKind,
    Ratio,
    SourceKind,
    SourceOptions,
)
from models.options import Modality
from rewards.registry import COMPLETIONS
from rl.text_compatibility import text_problems

if TYPE_CHECKING:  # they import torch, which `denoiserl config` must not wait for
    from models.image import ImageSpec
    from models.text import TextSpec

AT_LEAST = {
    "algorithm.likelihood.shrink": 1,
    "algorithm.likelihood.segments": 1,
    "algorithm.likelihood.draws": 1,
    "algorithm.likelihood.inversion_steps": 1,
    "algorithm.clip": 0,
    "algorithm.clip_high": 0,
    "algorithm.running.buffer": 1,
    "algorithm.running.minimum": 1,
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
    "algorithm.advantage_clip",
    "algorithm.clip_kl",
    "algorithm.optimizer.learning_rate",
    "algorithm.optimizer.eps",
    "algorithm.optimizer.max_grad_norm",
    "reward.timeout_seconds",
    "rollout.timeout_seconds",
    "cluster.startup_timeout_seconds",
    "cluster.step_timeout_seconds",
)


def check(config: Config, spec: TextSpec | ImageSpec | None) -> None:
    """Refuses a configuration that cannot train.

    Args:
        spec: the loaded model's facts; None checks what can be known without the model.

    Raises:
        ConfigError: every problem found, one a line.
    """
    if config.model.modality is Modality.image:
        from rl.image_compatibility import image_problems

        own = image_problems(config, cast("ImageSpec | None", spec))
    else:
        own = text_problems(config, cast("TextSpec | None", spec))
    problems = [*_ranges(config), *own, *_algorithm(config), *_rollout(config)]
    problems += [*_data(config), *_rewards(config), *_evaluation(config), *_cluster(config)]
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


def _algorithm(config: Config) -> Iterator[str]:
    algorithm = config.algorithm
    if algorithm.running.buffer < algorithm.running.minimum:
        yield (
            f"algorithm.running.buffer={algorithm.running.buffer} is below minimum={algorithm.running.minimum}: "
            f"a prompt would never have enough; raise the buffer"
        )
    supervised = is_supervised(config)
    replay = algorithm.likelihood.kind is LikelihoodKind.replay
    if algorithm.objective is ObjectiveKind.ppo_clip and algorithm.ratio is Ratio.none:
        yield "algorithm.objective=ppo_clip clips a ratio, but ratio=none; use ratio=element or objective=weighted"
    if algorithm.objective is ObjectiveKind.weighted and algorithm.ratio is not Ratio.none:
        yield f"algorithm.objective=weighted has no ratio, but ratio={algorithm.ratio.name}; use ratio=none"
    if supervised and algorithm.objective is not ObjectiveKind.weighted:
        yield "algorithm.advantage=constant is supervised training and needs objective=weighted and ratio=none"
    if supervised and replay:
        yield "algorithm.likelihood.kind=replay needs rollouts, and advantage=constant makes none; use kind=elbo"
    if not supervised and not replay and config.model.modality is Modality.text:
        yield "algorithm.likelihood.kind=elbo is for supervised training; use kind=replay, or algorithm=sft"
    if not replay and algorithm.kl.coefficient > 0 and config.model.modality is Modality.text:
        yield "algorithm.kl.coefficient: the KL term is computed on a replayed chain; with likelihood.kind=elbo use 0"
    if not replay and algorithm.denominator is Denominator.step:
        yield "algorithm.denominator=step averages over the parts of a replay; with likelihood.kind=elbo use sequence"


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
    if not config.reward.terms:
        yield "reward.terms is empty, there is nothing to learn from; choose a file, for example reward=math"


def _data(config: Config) -> Iterator[str]:
    train, evaluation = config.data.train, config.data.evaluation
    for name, source in (("data.train", train), ("data.evaluation", evaluation)):
        if source is not None and source.size is None and _endless(source):
            yield f"{name}.size=null: {source.kind.name} makes problems without end; set a number"
    if evaluation is not None and _overlap(train, evaluation):
        yield (
            "data.evaluation has the training problems in it; use another split or file, or for reasoning-gym a seed "
            f"of at least {train.seed + (train.size or 0)} (problem i comes from seed + i)"
        )


def _endless(source: SourceOptions) -> bool:
    return source.kind is SourceKind.reasoning_gym or (source.kind is SourceKind.scenes and source.split == "train")


def _overlap(first: SourceOptions, second: SourceOptions) -> bool:
    if first.kind is second.kind and first.kind in (SourceKind.scenes, SourceKind.digits):
        return first.split == second.split  # whatever the seed: the splits share no prompt, or no picture
    if (first.kind, first.name, first.args) != (second.kind, second.name, second.args):
        return False
    if first.kind is SourceKind.reasoning_gym:
        end_of_first, end_of_second = first.seed + (first.size or 0), second.seed + (second.size or 0)
        return first.seed < end_of_second and second.seed < end_of_first
    return first.split == second.split


def _rewards(config: Config) -> Iterator[str]:
    modality = config.model.modality.value
    for name, term in config.reward.terms.items():
        scored = COMPLETIONS.get(term.function, modality)
        if scored != modality:
            yield (
                f"reward.terms.{name}.function={term.function} is a reward of {scored}s, but "
                f"model.modality={modality}; choose a reward of {modality}s, or a model of {scored}s"
            )


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
