"""Options of trees of samples that cannot work; each problem is one sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator

from configs.algorithm_options import AdvantageKind, AlgorithmOptions, LikelihoodKind, Partition, Ratio
from configs.schema import Config
from models.options import Modality
from rl.algorithm.requirements import WHOLE_SAMPLES
from rollout.branching import Tree
from rollout.options import (
    BranchingOptions,
    Count,
    DenoisingOptions,
    KernelKind,
    Remask,
    SamplerOptions,
    WindowKind,
)

NAME = "rollout.branching"


def branching_problems(config: Config) -> Iterator[str]:
    yield from candidate_problems(config)
    shared = [name for name in ("branching", "step_candidates") if getattr(config.rollout, name) is not None]
    if shared and config.algorithm.value is not None:
        yield (
            f"algorithm.value judges whole chains, each of them its own, and with rollout.{shared[0]} samples "
            f"share steps; use value=null"
        )
    if shared and (config.algorithm.advantage is AdvantageKind.per_step or _records_proposals(config)):
        yield (
            f"advantage=per_step, likelihood.kind=proposals and remasking keep what every step of every sample made "
            f"of it, and with rollout.{shared[0]} samples share steps; use one of the two"
        )
    algorithm, branching = config.algorithm, config.rollout.branching
    if algorithm.advantage.of_branches:
        yield from _of_branches(config)
    elif algorithm.leaf_weights:
        yield (
            f"algorithm.leaf_weights is for branches that samples share, and advantage={algorithm.advantage.name} "
            f"trains none of them; use advantage=siblings"
        )
    if algorithm.likelihood.partition is Partition.forks and branching is None:
        yield f"algorithm.likelihood.partition=forks cuts traces where samples part; set {NAME}.forks and factors"
    advantage = algorithm.advantage
    of_parts = advantage.of_branches or advantage is AdvantageKind.per_step
    if algorithm.extremes is not None and (of_parts or advantage.offline):
        yield (
            f"algorithm.extremes compares samples, and advantage={algorithm.advantage.name} does not; use "
            f"advantage=running, or null"
        )
    yield from _extreme_samples(config)
    if algorithm.extremes is not None and algorithm.extremes >= (algorithm.advantage_clip or math.inf):
        yield (
            f"algorithm.extremes={algorithm.extremes}: no advantage is larger than advantage_clip="
            f"{algorithm.advantage_clip}, so no sample would be trained; use less"
        )
    if branching is not None:
        yield from _tree(config, branching)


def _extreme_samples(config: Config) -> Iterator[str]:
    algorithm, size = config.algorithm, config.rollout.group_size
    count, advantage = algorithm.extreme_samples, algorithm.advantage
    if count is None:
        return
    name = f"algorithm.extreme_samples={count}"
    if advantage in (AdvantageKind.per_step, AdvantageKind.best_worst, AdvantageKind.none) or advantage.offline:
        yield (
            f"{name} ranks the samples of a group, or the leaves of a tree, and advantage={advantage.name} leaves "
            f"nothing to rank; use null"
        )
    elif 2 * count >= size:
        yield f"{name} at each end leaves no sample of rollout.group_size={size} out; use less"
    if algorithm.extremes is not None:
        yield f"{name} and algorithm.extremes both say which samples are trained; use one of them"


def _of_branches(config: Config) -> Iterator[str]:
    algorithm = config.algorithm
    cell = f"algorithm.advantage={algorithm.advantage.name}"
    if config.rollout.branching is None:
        yield f"{cell} compares branches of a tree; set {NAME}.forks and {NAME}.factors"
    if algorithm.likelihood.partition is Partition.left_to_right:
        yield (
            f"{cell}: partition=left_to_right scores a branch before later tokens of one of its leaves; use "
            f"partition=every_step"
        )
    if algorithm.ratio is Ratio.step and algorithm.likelihood.partition not in (Partition.every_step, Partition.forks):
        yield f"{cell}: with ratio=step a part of several rounds may lie on both sides of a fork; use ratio=element"


def candidate_problems(config: Config) -> Iterator[str]:
    """Of candidates for single steps."""
    rollout, denoising, name = config.rollout, config.rollout.denoising, "rollout.step_candidates"
    if rollout.step_candidates is None:
        return
    if config.model.modality is not Modality.image:
        yield (
            f"{name} judges each next latent by the image that it leads to; a text that is half masked is no such "
            f"estimate: use rollout.branching"
        )
        return
    if config.algorithm.likelihood.kind is not LikelihoodKind.replay or config.algorithm.advantage.offline:
        yield f"{name} trains recorded steps; use likelihood.kind=replay and rollouts"
    if denoising.kernel is KernelKind.ode:
        yield f"{name}: kernel=ode draws no noise, so all candidates would be one; use kernel=ddim"
    if denoising.window.kind is not WindowKind.all or not denoising.window.trains_all:
        yield (
            f"{name} trains every step from first_step on; use rollout.denoising.window.kind=all, trained_fraction=1 "
            f"and untrained=null"
        )
    if not 0 <= rollout.step_candidates.first_step < denoising.steps - 1:
        yield (
            f"{name}.first_step={rollout.step_candidates.first_step}: must be one of the {denoising.steps - 1} steps "
            f"that draw noise, from 0"
        )
    if config.algorithm.advantage.over_the_update:
        yield (
            f"{name} makes every step a group, and advantage={config.algorithm.advantage.name} would compare estimates "
            f"of different steps, which are not equally good; use advantage=zscore or best_worst"
        )
    if rollout.branching is not None or config.algorithm.advantage.of_branches:
        yield f"{name} makes every step a group of its own, and rollout.branching a tree of chains; use one of them"
    if rollout.refills > 0:
        yield f"rollout.refills={rollout.refills} replaces prompts, each of which has a group for every step; use 0"


def _records_proposals(config: Config) -> bool:
    remasks = config.model.modality is Modality.text and config.rollout.sampler.remask is not Remask.none
    return remasks or config.algorithm.likelihood.kind is LikelihoodKind.proposals


def _takes_whole_samples(algorithm: AlgorithmOptions) -> bool:
    return algorithm.ratio is Ratio.sequence or algorithm.objective in WHOLE_SAMPLES


def _tree(config: Config, options: BranchingOptions) -> Iterator[str]:
    algorithm, rollout = config.algorithm, config.rollout
    image = config.model.modality is Modality.image
    if algorithm.advantage.offline or algorithm.likelihood.kind is not LikelihoodKind.replay:
        yield (
            f"{NAME} trains steps of recorded chains, but likelihood.kind={algorithm.likelihood.kind.name} with "
            f"advantage={algorithm.advantage.name} scores none; use kind=replay, or {NAME}=null"
        )
    if _takes_whole_samples(algorithm):
        yield (
            f"{NAME} trains parts of samples, but ratio={algorithm.ratio.name} with objective="
            f"{algorithm.objective.name} takes them whole; use ratio=element and objective=ppo_clip"
        )
    if options.moving_updates < 1:
        yield f"{NAME}.moving_updates={options.moving_updates}: must be at least 1"
    steps = rollout.denoising.steps if image else rollout.sampler.max_new_tokens
    ends = [options.forks] if options.final_forks is None else [options.forks, options.final_forks]
    if len({len(forks) for forks in ends}) > 1:
        yield f"{NAME}.final_forks={list(ends[-1])}: must be as many as forks={list(ends[0])}"
        return
    for forks in ends:
        try:
            leaves = Tree(tuple(forks), tuple(options.factors), steps).leaves
        except ValueError as error:
            yield f"{NAME}: {error}"
            return
    if rollout.group_size != leaves:
        yield (
            f"rollout.group_size={rollout.group_size}, but a tree with {NAME}.factors={list(options.factors)} has "
            f"{leaves} leaves; use that"
        )
    every = sorted(fork for forks in ends for fork in forks)
    yield from _noise_at_forks(rollout.denoising, every) if image else _rounds(rollout.sampler, every[-1])


def _rounds(sampler: SamplerOptions, last_fork: int) -> Iterator[str]:
    """The rounds of a quota are known beforehand where the options name the block."""
    if sampler.count is not Count.quota or sampler.rounds_per_block is None or sampler.block_length is None:
        return
    rounds = -(-sampler.max_new_tokens // sampler.block_length) * min(sampler.rounds_per_block, sampler.block_length)
    if last_fork >= rounds:
        yield (
            f"{NAME}.forks: texts of max_new_tokens={sampler.max_new_tokens} take {rounds} rounds, which no fork "
            f"at {last_fork} follows; use smaller ones"
        )


def _noise_at_forks(denoising: DenoisingOptions, forks: list[int]) -> Iterator[str]:
    """Children of an image part by the noise of the step at their fork."""
    if denoising.kernel is KernelKind.ode:
        yield f"{NAME}: kernel=ode draws no noise, so samples would never part; use kernel=dance_sde"
        return
    window, last = denoising.window, denoising.steps - 1
    first, stop = 0, last
    if window.kind is not WindowKind.all:
        # The steps that every place of a moving window holds.
        end = last if window.stop is None else window.stop
        moves = window.kind is not WindowKind.fixed
        first, stop = (end - window.size if moves else window.start), window.start + window.size
    outside = [fork for fork in forks if not first <= fork < stop]
    if outside:
        yield (
            f"{NAME}.forks: steps {outside} draw no noise, or not in every update, with "
            f"rollout.denoising.window.kind={window.kind.name} and steps={denoising.steps}, so samples would part "
            f"later than they are compared; use forks in the window, or window.kind=all"
        )
