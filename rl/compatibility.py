"""Options that cannot work together, found before anything starts.

Each check yields one sentence for each problem: the options, why they cannot work, what to do instead.
Ranges of single options come first, then the rollout, the algorithm, the data, the cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from configs.algorithm_options import (
    AdvantageKind,
    AlgorithmOptions,
    Denominator,
    LikelihoodKind,
    ObjectiveKind,
    OldPolicyOptions,
    Partition,
    Ratio,
)
from configs.errors import ConfigError
from configs.schema import IMAGE_ANSWERS, TEXT_ANSWERS, Config, SourceKind, SourceOptions
from models.options import Modality, Precision, TrainedPart
from rewards.registry import COMPLETIONS
from rl.advantages import OFFLINE_ADVANTAGES
from rl.branching_compatibility import branching_problems
from rl.requirements import WHOLE_SAMPLES
from rl.schedule import MAX_REFILLS
from rl.text_compatibility import text_problems
from rl.unused_options import unused_options
from rl.value_compatibility import value_problems

if TYPE_CHECKING:  # they import torch, which `denoiserl config` must not wait for
    from models.image import ImageSpec
    from models.text import TextSpec

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
    "run.keep_trajectories": 0,
}
ABOVE_ZERO = (
    "algorithm.advantage_clip",
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


def check(config: Config, spec: TextSpec | ImageSpec | None) -> None:
    """Refuses a configuration that cannot train.

    Args:
        spec: the loaded model's facts; None checks what can be known without the model.

    Raises:
        ConfigError: every problem found, one a line.
    """
    if found := problems(config, spec):
        raise ConfigError("\n  ".join(["these options cannot work:", *found]))


def problems(config: Config, spec: TextSpec | ImageSpec | None) -> list[str]:
    """One sentence each, beginning with the option's name."""
    if config.model.modality is Modality.image:
        from rl.image_compatibility import image_problems

        own = image_problems(config, cast("ImageSpec | None", spec))
    else:
        own = text_problems(config, cast("TextSpec | None", spec))
    found = [*_ranges(config), *_adapters(config), *own, *unused_options(config), *_algorithm(config)]
    found += branching_problems(config)
    return [*found, *_rollout(config), *_data(config), *_rewards(config), *_evaluation(config), *_cluster(config)]


def differentiates_reward(config: Config) -> bool:
    """Training by the gradient of the reward itself: the learners draw the samples."""
    return config.algorithm.likelihood.kind is LikelihoodKind.reward_gradient


def _ranges(config: Config) -> Iterator[str]:
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


def _get(config: Config, path: str) -> Any:
    """Value at a dotted path; None when a section on the way is null."""
    here: Any = config
    for name in path.split("."):
        here = None if here is None else getattr(here, name)
    return here


def _algorithm(config: Config) -> Iterator[str]:
    algorithm = config.algorithm
    if algorithm.running.buffer < algorithm.running.minimum:
        yield (
            f"algorithm.running.buffer={algorithm.running.buffer} is below minimum={algorithm.running.minimum}: "
            f"a prompt would never have enough; raise the buffer"
        )
    offline = algorithm.advantage.offline
    replay = algorithm.likelihood.kind is LikelihoodKind.replay
    yield from _cell(algorithm)
    yield from value_problems(algorithm)
    if algorithm.advantage is AdvantageKind.constant and algorithm.objective is not ObjectiveKind.weighted:
        yield "algorithm.advantage=constant is supervised training and needs objective=weighted and ratio=none"
    if algorithm.advantage is AdvantageKind.preference and algorithm.objective is not ObjectiveKind.group_dpo:
        yield (
            f"algorithm.objective={algorithm.objective.name} has no bound below for rejected answers, or a ratio to a "
            f"policy that drew none of them; with advantage=preference use objective=group_dpo and ratio=none"
        )
    if algorithm.advantage is AdvantageKind.none and not differentiates_reward(config):
        yield "algorithm.advantage=none is for reward gradients; choose how samples are compared, or algorithm=draft"
    if offline and replay:
        yield (
            f"algorithm.likelihood.kind=replay needs rollouts, and advantage={algorithm.advantage.name} makes none; "
            f"use kind=elbo"
        )


WITHOUT_RATIO = (ObjectiveKind.weighted, ObjectiveKind.sandwich, ObjectiveKind.group_dpo, ObjectiveKind.nft)


def _cell(algorithm: AlgorithmOptions) -> Iterator[str]:
    """Likelihood, ratio, objective and advantage must be of one mind."""
    objective, ratio = algorithm.objective, algorithm.ratio
    replay = algorithm.likelihood.kind is LikelihoodKind.replay
    if objective in WITHOUT_RATIO and ratio is not Ratio.none:
        yield f"algorithm.objective={objective.name} has no ratio, but ratio={ratio.name}; use ratio=none"
    if objective not in WITHOUT_RATIO and ratio is Ratio.none:
        yield (
            f"algorithm.objective={objective.name} is made of a ratio, but ratio=none; use ratio=element or "
            f"objective=weighted"
        )
    yield from _steps(algorithm)
    yield from _proposals(algorithm)
    if objective is ObjectiveKind.linear_bound and (ratio is not Ratio.sequence or replay):
        yield (
            f"algorithm.objective=linear_bound bounds the ratio of sequences draw by draw, but ratio={ratio.name} and "
            f"likelihood.kind={algorithm.likelihood.kind.name}; use ratio=sequence and likelihood.kind=elbo"
        )
    if objective is ObjectiveKind.sandwich and replay:
        yield (
            "algorithm.objective=sandwich needs bounds of the log-likelihood, and a replayed chain gives none; use "
            "likelihood.kind=elbo"
        )
    if objective is ObjectiveKind.nft and replay:
        yield "algorithm.objective=nft is a denoising loss, and a replayed chain is none; use likelihood.kind=elbo"
    if objective is ObjectiveKind.nft and algorithm.advantage_clip is None:
        yield "algorithm.objective=nft makes a probability of the advantage's part of advantage_clip; set it, to 5 say"
    if objective is not ObjectiveKind.nft and algorithm.old != OldPolicyOptions():
        yield f"algorithm.old is for objective=nft and does nothing with {objective.name}; leave it out"
    if not (0 <= algorithm.old.decay < 1 and algorithm.old.growth >= 0):
        yield f"algorithm.old.decay={algorithm.old.decay}: must lie in [0, 1), and growth be at least 0"
    if objective is ObjectiveKind.trust_region and algorithm.clip_kl is None:
        yield "algorithm.objective=trust_region is as wide as clip_kl says, which is null; set it, for example to 0.02"
    if ratio is Ratio.sequence and algorithm.clip_kl is not None:
        yield "algorithm.clip_kl is the width of one decision's ratio, but ratio=sequence has one a sample; use clip"
    if algorithm.dual_clip is not None:
        if objective is not ObjectiveKind.ppo_clip:
            yield f"algorithm.dual_clip is a part of objective=ppo_clip; with {objective.name} use null"
        elif algorithm.dual_clip <= 1:
            yield f"algorithm.dual_clip={algorithm.dual_clip}: must be above 1, or it would hold every update back"
    if algorithm.self_normalise and objective not in (ObjectiveKind.ppo_clip, ObjectiveKind.clip_always):
        yield (
            f"algorithm.self_normalise divides by clipped ratios, which objective={objective.name} has none of; use "
            f"objective=clip_always"
        )
    if objective is ObjectiveKind.sandwich and algorithm.upper_power <= 1:
        yield f"algorithm.upper_power={algorithm.upper_power}: must be above 1; at 1 there is no upper bound"
    if not 0 <= algorithm.upper_share <= 1:
        yield f"algorithm.upper_share={algorithm.upper_share}: must lie in [0, 1]"
    if ratio is Ratio.guard and objective is ObjectiveKind.trust_region:
        yield "algorithm.objective=trust_region has no clip for ratio=guard to widen; use ratio=element"
    if objective is ObjectiveKind.group_dpo and algorithm.denominator is Denominator.step:
        yield "algorithm.denominator=step averages within samples, which objective=group_dpo sums up; use sequence"
    if algorithm.reference_clip is not None and not 0 < algorithm.reference_clip < 1:
        yield f"algorithm.reference_clip={algorithm.reference_clip}: must lie between 0 and 1, both excluded"
    if algorithm.solved_band is not None and not 0 <= algorithm.solved_band[0] <= algorithm.solved_band[1] <= 1:
        yield f"algorithm.solved_band={list(algorithm.solved_band)}: must be two numbers in [0, 1], the lower first"


OF_WHOLE_SAMPLES = (*WHOLE_SAMPLES, ObjectiveKind.nft)
"""Objectives that make one number of a sample."""


def _steps(algorithm: AlgorithmOptions) -> Iterator[str]:
    """Advantages of single steps."""
    name = "algorithm.advantage=per_step"
    if algorithm.advantage is not AdvantageKind.per_step:
        if algorithm.selected_steps is not None:
            yield (
                f"algorithm.selected_steps={algorithm.selected_steps} selects steps by their advantages, but advantage="
                f"{algorithm.advantage.name} has one a sample; use advantage=per_step, or leave it out"
            )
        return
    if algorithm.likelihood.kind not in (LikelihoodKind.replay, LikelihoodKind.proposals):
        yield (
            f"{name} credits the steps of a rollout, and likelihood.kind={algorithm.likelihood.kind.name} scores none "
            f"of them; use kind=replay or, for text, proposals"
        )
    partition = algorithm.likelihood.partition
    if partition is Partition.left_to_right or (
        algorithm.ratio is Ratio.step and partition is not Partition.every_step
    ):
        yield (
            f"{name}: a part of partition={partition.name} with ratio={algorithm.ratio.name} mixes the advantages of "
            f"several steps; use partition=every_step"
        )
    if algorithm.ratio is Ratio.sequence:
        yield f"{name} differs within a sample, but ratio=sequence has one ratio a sample; use ratio=element"
    if algorithm.objective in OF_WHOLE_SAMPLES:
        yield (
            f"{name} differs within a sample, but objective={algorithm.objective.name} makes one number of it; use "
            f"objective=ppo_clip"
        )
    if algorithm.value is not None:
        yield f"{name} and algorithm.value both say what each step is worth; use value=null, or advantage=raw"
    if algorithm.normalise_terms:
        yield f"{name} compares the sums of reward terms, step by step; use normalise_terms=false"


def _proposals(algorithm: AlgorithmOptions) -> Iterator[str]:
    """The likelihood of everything that was proposed is of rounds, not of samples."""
    if algorithm.likelihood.kind is not LikelihoodKind.proposals:
        return
    name = "algorithm.likelihood.kind=proposals"
    if algorithm.ratio is Ratio.sequence or algorithm.objective in OF_WHOLE_SAMPLES:
        yield (
            f"{name} scores a position in every round that guessed at it, which makes no likelihood of the sample for "
            f"ratio={algorithm.ratio.name} and objective={algorithm.objective.name}; use ratio=element and "
            f"objective=ppo_clip"
        )
    if algorithm.denominator is Denominator.canvas:
        yield f"{name} scores a position more than once, and denominator=canvas counts it once; use denominator=step"


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
    if algorithm.advantage.offline:
        return
    if rollout.refills > MAX_REFILLS:
        yield f"rollout.refills={rollout.refills}: at most {MAX_REFILLS}; raise reward spread or group_size instead"
    if rollout.refills > 0 and algorithm.advantage in (AdvantageKind.batch, AdvantageKind.running, AdvantageKind.raw):
        yield (
            f"rollout.refills replaces groups without a spread of their own, but advantage={algorithm.advantage.name} "
            f"does not compare within groups; use 0"
        )
    if rollout.refills > 0 and algorithm.advantage is AdvantageKind.per_step:
        yield (
            "rollout.refills replaces groups whose final rewards are equal, but advantage=per_step learns from the way "
            "there too; use 0"
        )
    alone = algorithm.advantage is AdvantageKind.raw or differentiates_reward(config)
    if rollout.group_size == 1 and not alone:
        yield (
            f"rollout.group_size=1: a group of one has no spread, advantage={algorithm.advantage.name} would be zero "
            f"for every sample; use at least 2"
        )
    if not config.reward.terms:
        yield "reward.terms is empty, there is nothing to learn from; choose a file, for example reward=math"


def _data(config: Config) -> Iterator[str]:
    training, evaluation = config.data.training(), config.data.evaluation
    given = training if evaluation is None else {**training, "data.evaluation": evaluation}
    for name, source in given.items():
        if source.size is None and _endless(source):
            yield f"{name}.size=null: {source.kind.name} makes problems without end; set a number"
        yield from _users(config, name, source)
    for name, source in training.items():
        yield from _answers(config, name, source)
        if evaluation is not None and _overlap(source, evaluation):
            yield (
                f"data.evaluation has the problems of {name} in it; use another split or file, or for reasoning-gym a "
                f"seed of at least {source.seed + (source.size or 0)} (problem i comes from seed + i)"
            )


def _answers(config: Config, where: str, source: SourceOptions) -> Iterator[str]:
    """A problem has a demonstration or a pair, and offline training needs the one that its advantages are of."""
    advantage = config.algorithm.advantage
    for names in (TEXT_ANSWERS, IMAGE_ANSWERS):
        demonstration, chosen, rejected = names
        given = [name for name in names if getattr(source, name) is not None]
        if given not in ([], [demonstration], [chosen, rejected]):
            yield (
                f"{where} has {' and '.join(given)}; a problem has either a demonstration ({demonstration}) or a "
                f"pair ({chosen} and {rejected}): set the others to null"
            )
    image = config.model.modality is Modality.image
    demonstration, chosen, rejected = IMAGE_ANSWERS if image else TEXT_ANSWERS
    what = "the column of images" if image else "a template of them"
    if advantage is AdvantageKind.constant and getattr(source, demonstration) is None:
        yield f"algorithm.advantage=constant trains on demonstrations; set {where}.{demonstration} to {what}"
    if advantage is AdvantageKind.preference and getattr(source, chosen) is None and getattr(source, rejected) is None:
        what = "the columns of images" if image else "templates of them"
        instead = "" if getattr(source, demonstration) is None else f", and {where}.{demonstration}=null"
        yield (
            f"algorithm.advantage=preference trains on pairs; set {where}.{chosen} and {where}.{rejected} to "
            f"{what}{instead}"
        )


def _users(config: Config, where: str, source: SourceOptions) -> Iterator[str]:
    """Users' vectors and the adapter that reads them come together."""
    adapter = config.model.user_adapter
    if source.user is not None and adapter is None:
        yield (
            f"{where}.user={source.user} names a column of users' vectors, which the model would not read; set "
            f"model.user_adapter.dimension to their width, or {where}.user=null"
        )
    if source.user is None and adapter is not None:
        yield (
            f"model.user_adapter makes pictures for users, and {where} has none; set {where}.user to the column with "
            f"their vectors"
        )


def _adapters(config: Config) -> Iterator[str]:
    model = config.model
    if model.user_adapter is not None and model.modality is not Modality.image:
        yield "model.user_adapter is for models of images; leave it out"
    if model.user_adapter is not None and model.lora is not None:
        yield "model.user_adapter and model.lora are two ways to train; set model.lora=null, or model.user_adapter=null"
    if model.user_adapter is not None and model.train is not TrainedPart.network:
        yield "model.user_adapter is a part of the network, which model.train=text_encoder freezes; use one of the two"
    if model.user_adapter is not None and config.algorithm.value is not None:
        yield "algorithm.value predicts from prompt and picture and knows no user; beside model.user_adapter use null"


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
    if not config.reward.terms and config.algorithm.advantage.offline:
        yield "evaluation.every is above 0, but reward.terms is empty; choose a reward or set evaluation.every=0"


def _cluster(config: Config) -> Iterator[str]:
    cluster, rollout = config.cluster, config.rollout
    if config.algorithm.objective is ObjectiveKind.nft and cluster.zero_stage == 3:
        yield (
            "algorithm.objective=nft keeps a copy of the whole trained weights, and cluster.zero_stage=3 shards them; "
            "use a lower stage"
        )
    for name in ("learner_gpus", "rollout_gpus"):
        if getattr(cluster, name) not in (0, 1):
            yield f"cluster.{name}={getattr(cluster, name)}: a process drives 0 or 1 GPU; start more processes"
    if cluster.zero_stage not in range(4):
        yield f"cluster.zero_stage={cluster.zero_stage}: DeepSpeed has stages 0, 1, 2 and 3"
    if cluster.zero_stage == 0 and config.model.precision is Precision.bf16:
        yield (
            "cluster.zero_stage=0 with model.precision=bf16: without ZeRO, DeepSpeed adds up the gradients of "
            "micro-batches in bf16, where small ones are lost; use stage 1, which takes no more memory"
        )
    advantage = config.algorithm.advantage
    group_size = len(OFFLINE_ADVANTAGES[advantage]) if advantage.offline else rollout.group_size
    samples = rollout.prompts_per_update * group_size
    if samples < cluster.learners:
        yield (
            f"cluster.learners={cluster.learners} is more than the {samples} samples of an update; use fewer learners "
            f"or a larger rollout.prompts_per_update"
        )
