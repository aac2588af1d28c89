"""Options that the chosen likelihood, objective or advantage would never read: set, they would silently do nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from configs.algorithm_options import (
    AdvantageKind,
    AlgorithmOptions,
    AnchorOn,
    Cut,
    LikelihoodKind,
    LikelihoodOptions,
    ObjectiveKind,
    Partition,
    RewardGradientOptions,
)
from configs.schema import Config
from models.options import Modality, ModelOptions
from rl.compatibility.run import COMPARED_ELSEWHERE
from rollout.options import Count, DenoisingOptions, SamplerOptions

REPLAY, ELBO = (LikelihoodKind.replay,), (LikelihoodKind.elbo,)
READ_BY: dict[str, tuple[tuple[LikelihoodKind, ...], Modality | None]] = {
    "partition": (REPLAY, None),  # for images it has a sentence of its own
    "shrink": (REPLAY, Modality.text),
    "segments": (REPLAY, Modality.text),
    "sampled_parts": (REPLAY, Modality.text),
    "prompt_masking": (REPLAY + ELBO, Modality.text),
    "block_length": (REPLAY, Modality.text),
    "until_stop": (REPLAY + ELBO, Modality.text),
    "draws": (ELBO, None),
    "mask_law": (ELBO, Modality.text),
    "rate_range": (ELBO, Modality.text),
    "rising_rate": (ELBO, Modality.text),
    "complement": (ELBO, Modality.text),
    "full_view": (ELBO, Modality.text),
    "canvas_block": (ELBO, Modality.text),
    "mask_weight": (ELBO, Modality.text),
    "noise_law": (ELBO, Modality.image),
    "level_range": (ELBO, Modality.image),
    "loss_weight": (ELBO, Modality.image),
    "shared_noise": (ELBO, Modality.image),
    "inversion_steps": (ELBO, Modality.image),
    "unconditional_gradient": ((LikelihoodKind.replay, LikelihoodKind.reward_gradient), Modality.image),
}
"""Which likelihoods read an option, and of what models; () and None are any."""

READ_BY_PARTITION = {"shrink": (Partition.shrink,), "segments": (Partition.segments,)}
READ_BY_COUNT = {
    "rounds_per_block": (Count.quota,),
    "threshold": (Count.threshold,),
    "factor": (Count.factor,),
    "entropy_bound": (Count.entropy_bound, Count.entropy_sum),
}
OF_MODELS = {
    "block_length": Modality.text,
    "mask_token": Modality.text,
    "prompt_segments": Modality.image,
    "max_sequence_length": Modality.image,
}

CLIPPED = (ObjectiveKind.ppo_clip, ObjectiveKind.clip_always, ObjectiveKind.linear_bound)
READ_BY_OBJECTIVE = {
    "clip": CLIPPED,
    "clip_high": CLIPPED,
    "clip_kl": (*CLIPPED, ObjectiveKind.trust_region),
    "beta": (ObjectiveKind.group_dpo, ObjectiveKind.nft),
    "upper_power": (ObjectiveKind.sandwich,),
    "upper_share": (ObjectiveKind.sandwich,),
    "reference_clip": (ObjectiveKind.group_dpo,),
}


def unused_options(config: Config) -> Iterator[str]:
    """One sentence for each option that is set and not read."""
    options, modality = config.algorithm.likelihood, config.model.modality
    default = LikelihoodOptions()
    for name, (kinds, only) in READ_BY.items():
        value = getattr(options, name)
        if _plain(value) == _plain(getattr(default, name)):
            continue
        setting = f"algorithm.likelihood.{name}={_plain(value)}"
        if kinds and options.kind not in kinds:
            yield f"{setting} does nothing with kind={options.kind.name}; leave it out, or use kind={kinds[0].name}"
        elif only not in (None, modality):
            yield f"{setting} does nothing for a model of {modality.name}s; leave it out"
    for name, only in OF_MODELS.items():
        value = getattr(config.model, name)
        if value != getattr(ModelOptions, name) and modality is not only:
            yield f"model.{name}={value} does nothing for a model of {modality.name}s; leave it out"
    yield from _of_another_choice(options, "algorithm.likelihood", "partition", READ_BY_PARTITION)
    yield from _of_another_choice(config.rollout.sampler, "rollout.sampler", "count", READ_BY_COUNT)
    gradient = config.algorithm.reward_gradient
    if options.kind is not LikelihoodKind.reward_gradient and gradient != RewardGradientOptions():
        yield (
            f"algorithm.reward_gradient does nothing with likelihood.kind={options.kind.name}; leave it out, or use "
            f"algorithm=draft"
        )
    if gradient.cut is not Cut.gaussian and gradient.cut_std != RewardGradientOptions.cut_std:
        yield f"algorithm.reward_gradient.cut_std={gradient.cut_std} does nothing with cut={gradient.cut.name}"
    yield from _of_the_loss(config.algorithm)
    other = {Modality.text: ("denoising", DenoisingOptions()), Modality.image: ("sampler", SamplerOptions())}
    section, untouched = other[modality]
    if getattr(config.rollout, section) != untouched:
        yield f"rollout.{section} does nothing for a model of {modality.name}s; leave it out"


WITHOUT_A_SPREAD = (*COMPARED_ELSEWHERE, AdvantageKind.per_step, AdvantageKind.none)
"""Advantages that a group may have although its own rewards are equal."""


def _of_another_choice(
    options: Any, section: str, choice: str, read_by: Mapping[str, tuple[Enum, ...]]
) -> Iterator[str]:
    """Options of a section that only some values of `choice`, which lies beside them, read."""
    chosen = getattr(options, choice)
    for name, readers in read_by.items():
        value = getattr(options, name)
        if value != getattr(type(options), name) and chosen not in readers:
            yield (
                f"{section}.{name}={value} does nothing with {choice}={chosen.name}; leave it out, or use "
                f"{choice}={readers[0].name}"
            )


def _of_the_loss(algorithm: AlgorithmOptions) -> Iterator[str]:
    objective, advantage = algorithm.objective, algorithm.advantage
    default = AlgorithmOptions()
    for name, objectives in READ_BY_OBJECTIVE.items():
        value = getattr(algorithm, name)
        if value != getattr(default, name) and objective not in (*objectives, ObjectiveKind.custom):
            readers = ", ".join(each.name for each in objectives)
            nothing = f"algorithm.{name}={value} does nothing with objective={objective.name}"
            yield f"{nothing}; it is for {readers}, so leave it out"
    if algorithm.running != default.running and advantage is not AdvantageKind.running:
        yield f"algorithm.running does nothing with advantage={advantage.name}; leave it out, or use advantage=running"
    if algorithm.positive_only and advantage is not AdvantageKind.softmax:
        yield f"algorithm.positive_only=true does nothing with advantage={advantage.name}; it is for softmax: drop it"
    if algorithm.anchor != 0 and advantage in (AdvantageKind.constant, AdvantageKind.none):
        yield (
            f"algorithm.anchor={algorithm.anchor} is a supervised loss beside the objective, and advantage="
            f"{advantage.name} has none beside it; use 0"
        )
    if algorithm.anchor_on is not AnchorOn.better and algorithm.anchor == 0:
        yield f"algorithm.anchor_on={algorithm.anchor_on.name} does nothing with anchor=0; set both, or leave it out"
    if algorithm.anchor_growth is not None and algorithm.anchor == 0:
        yield f"algorithm.anchor_growth={algorithm.anchor_growth} does nothing with anchor=0; set both, or leave it out"
    if algorithm.least_difference is not None and (advantage.offline or advantage in WITHOUT_A_SPREAD):
        yield (
            f"algorithm.least_difference={algorithm.least_difference} is of the rewards of a group, and advantage="
            f"{advantage.name} does not compare these; leave it out, or use advantage=zscore or best_worst"
        )


def _plain(value: Any) -> Any:
    """As it is written in a configuration."""
    if isinstance(value, Enum):
        return value.name
    return list(value) if isinstance(value, tuple) else value
