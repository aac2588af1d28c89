"""Likelihood, ratio, objective and advantage that cannot work together; each problem is one sentence."""

from __future__ import annotations

from collections.abc import Iterator

from configs.algorithm_options import (
    AdvantageKind,
    AlgorithmOptions,
    AnchorOn,
    Denominator,
    LikelihoodKind,
    ObjectiveKind,
    OldPolicyOptions,
    Partition,
    Ratio,
    TermScale,
)
from rl.algorithm.requirements import WHOLE_SAMPLES, differentiates_reward
from rl.compatibility.value import value_problems

WITHOUT_RATIO = (ObjectiveKind.weighted, ObjectiveKind.sandwich, ObjectiveKind.group_dpo, ObjectiveKind.nft)
OF_WHOLE_SAMPLES = (*WHOLE_SAMPLES, ObjectiveKind.nft)
"""Objectives that make one number of a sample."""


def algorithm_problems(algorithm: AlgorithmOptions) -> Iterator[str]:
    if algorithm.running.buffer < algorithm.running.minimum:
        yield (
            f"algorithm.running.buffer={algorithm.running.buffer} is below minimum={algorithm.running.minimum}: "
            f"a prompt would never have enough; raise the buffer"
        )
    offline = algorithm.advantage.offline
    if offline and algorithm.anchor_on is AnchorOn.solved:
        yield "algorithm.anchor_on=solved needs rewards, and answers in the data have none; use anchor_on=better"
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
    if algorithm.advantage is AdvantageKind.none and not differentiates_reward(algorithm):
        yield "algorithm.advantage=none is for reward gradients; choose how samples are compared, or algorithm=draft"
    if offline and replay:
        yield (
            f"algorithm.likelihood.kind=replay needs rollouts, and advantage={algorithm.advantage.name} makes none; "
            f"use kind=elbo"
        )


def _cell(algorithm: AlgorithmOptions) -> Iterator[str]:
    """Likelihood, ratio, objective and advantage must be of one mind."""
    objective, ratio = algorithm.objective, algorithm.ratio
    replay = algorithm.likelihood.kind is LikelihoodKind.replay
    if objective in WITHOUT_RATIO and ratio is not Ratio.none:
        yield f"algorithm.objective={objective.name} has no ratio, but ratio={ratio.name}; use ratio=none"
    if objective not in (*WITHOUT_RATIO, ObjectiveKind.custom) and ratio is Ratio.none:
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
    if algorithm.denominator in (Denominator.row, Denominator.row_length):
        if not replay:
            yield (
                f"algorithm.denominator={algorithm.denominator.name} counts the states that a replay scores, and "
                f"likelihood.kind={algorithm.likelihood.kind.name} replays none; use denominator=step"
            )
        of_whole = ratio is Ratio.sequence or objective in OF_WHOLE_SAMPLES
        if algorithm.denominator is Denominator.row and of_whole:
            yield (
                f"algorithm.denominator=row averages within a sample, and ratio={ratio.name} with objective="
                f"{objective.name} makes one number of it; use denominator=sequence"
            )
    if algorithm.reference_clip is not None and not 0 < algorithm.reference_clip < 1:
        yield f"algorithm.reference_clip={algorithm.reference_clip}: must lie between 0 and 1, both excluded"
    band = algorithm.solved_band
    if band is not None and (len(band) != 2 or not 0 <= band[0] <= band[1] <= 1):
        yield f"algorithm.solved_band={list(band)}: must be two numbers in [0, 1], the lower first"


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
    if algorithm.normalise_terms is not TermScale.none:
        yield f"{name} compares the sums of reward terms, step by step; use normalise_terms=none"


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
