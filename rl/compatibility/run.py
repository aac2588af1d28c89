"""Rollouts, rewards, evaluations and processes that cannot make a run; each problem is one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

from configs.algorithm_options import AdvantageKind, AlgorithmOptions, AnchorOn, KlOptions, KlTarget, ObjectiveKind
from configs.schema import Config
from models.options import Precision
from rewards.judge.terms import judge_problems
from rewards.options import Per
from rewards.registry import COMPLETIONS
from rl.algorithm.advantages import OFFLINE_ADVANTAGES
from rl.algorithm.requirements import differentiates_reward
from rl.data.tickets import MAX_REFILLS
from rollout.options import WindowKind

COMPARED_ELSEWHERE = (AdvantageKind.batch, AdvantageKind.running, AdvantageKind.raw)
"""Advantages that compare a sample with others than those of its group, or with none."""


OWN_METRICS = (
    "mean",
    "std",
    "solve_rate",
    "unscored",
    "unscored_estimates",
    "metric",
    "malformed",
    "failed",
    "paid",
    "weight",
)
"""What follows `reward/` in the metrics of a run, beside the names of terms."""


def run_problems(config: Config) -> Iterator[str]:
    yield from _rollout(config)
    yield from _rewards(config)
    yield from _pools(config)
    yield from judge_problems(config.reward, config.judge)
    yield from _evaluation(config)
    yield from _cluster(config)
    yield from _name(config.run.name)


def _name(name: str) -> Iterator[str]:
    """The run's folder is made of it, and is renamed when a run starts anew."""
    path = PurePath(name)
    if not name.strip() or not path.parts or path.is_absolute() or ".." in path.parts:
        yield f"run.name={name} names no folder within run.folder: choose a name such as quickstart"


def _rollout(config: Config) -> Iterator[str]:
    rollout, algorithm = config.rollout, config.algorithm
    if rollout.prompts_per_ticket > 0 and rollout.prompts_per_update % rollout.prompts_per_ticket:
        yield (
            f"rollout.prompts_per_update={rollout.prompts_per_update} is no multiple of "
            f"prompts_per_ticket={rollout.prompts_per_ticket}; an update consists of whole tickets: choose a multiple"
        )
    if algorithm.minibatches > rollout.prompts_per_update:
        yield (
            f"algorithm.minibatches={algorithm.minibatches} is more than "
            f"rollout.prompts_per_update={rollout.prompts_per_update}; some minibatches would be empty: use fewer"
        )
    kl_to_old = algorithm.kl.coefficient > 0 and algorithm.kl.to is KlTarget.old
    if kl_to_old and algorithm.minibatches * algorithm.epochs == 1 and rollout.max_staleness == 0:
        yield (
            "algorithm.kl.to=old: with one optimizer update for each rollout the policy is still the old one, and "
            "the KL has no gradient; use minibatches or epochs above 1, or kl.to=reference"
        )
    if algorithm.advantage.offline:
        return
    if rollout.refills > MAX_REFILLS:
        yield f"rollout.refills={rollout.refills}: at most {MAX_REFILLS}; raise reward spread or group_size instead"
    if rollout.refills > 0 and algorithm.advantage in COMPARED_ELSEWHERE:
        yield (
            f"rollout.refills replaces groups without a spread of their own, but advantage={algorithm.advantage.name} "
            f"does not compare within groups; use 0"
        )
    if rollout.refills > 0 and algorithm.advantage is AdvantageKind.per_step:
        yield (
            "rollout.refills replaces groups whose final rewards are equal, but advantage=per_step learns from the way "
            "there too; use 0"
        )
    alone = algorithm.advantage in (*COMPARED_ELSEWHERE, AdvantageKind.custom) or differentiates_reward(algorithm)
    if rollout.group_size == 1 and not alone:
        yield (
            f"rollout.group_size=1: a group of one has no spread, advantage={algorithm.advantage.name} would be zero "
            f"for every sample; use at least 2"
        )
    if not config.reward.terms:
        yield "reward.terms is empty, there is nothing to learn from; choose a file, for example reward=math"


def _rewards(config: Config) -> Iterator[str]:
    modality, solved_by = config.model.modality.value, config.reward.solved_by
    reported = config.reward.weights()
    if solved_by is not None and solved_by not in reported:
        yield f"reward.solved_by={solved_by} is no term; there are {', '.join(reported) or 'none'}"
    if config.reward.solved_at is None:
        yield from _unsolved(config)
    for name, term in config.reward.terms.items():
        if name in OWN_METRICS or name.startswith(("metric/", "malformed/", "failed/", "paid/", "weight/")):
            yield f"reward.terms.{name}: reward/{name} is a metric of every run; give the term another name"
        if "/" in name:
            yield f"reward.terms.{name}: TERM/CRITERION is the name of a criterion; use a name without /"
        if term.per is Per.group and config.algorithm.advantage is AdvantageKind.per_step:
            yield (
                f"reward.terms.{name}.per=group compares finished samples, and advantage=per_step scores estimates of "
                f"their steps too, which have no group; use per=sample or another advantage"
            )
        scored = COMPLETIONS.get(term.function, modality)
        if scored != modality:
            yield (
                f"reward.terms.{name}.function={term.function} is a reward of {scored}s, but "
                f"model.modality={modality}; choose a reward of {modality}s, or a model of {scored}s"
            )


def _pools(config: Config) -> Iterator[str]:
    reward = config.reward
    for name, pool in reward.pools.items():
        if not name.isidentifier():
            yield f"reward.pools.{name}: the workers are called after it: choose letters, digits and underscores"
        if name not in reward.by_pool:
            yield f"reward.pools.{name} scores no term: set reward.terms.TERM.pool={name}, or leave the pool out"
        if pool.workers < 1 or pool.cpus < 0 or pool.gpus < 0:
            yield f"reward.pools.{name}: it has at least 1 worker, and no less than 0 CPUs and GPUs"
    for name, term in reward.terms.items():
        if term.pool is not None and term.pool not in reward.pools:
            known = ", ".join(reward.pools) or "none"
            yield f"reward.terms.{name}.pool={term.pool} is none of reward.pools: there are {known}"
    if len(reward.by_pool) > 1 and config.algorithm.advantage is AdvantageKind.per_step:
        yield (
            "reward.terms are in several pools, and advantage=per_step scores estimates of steps where finished "
            "samples are scored: use one pool, or another advantage"
        )


def _unsolved(config: Config) -> Iterator[str]:
    """What asks for solved samples where nothing defines them."""
    algorithm = config.algorithm
    way_out = "set it to the reward of a success, such as 1, or"
    if config.reward.solved_by is not None:
        yield (
            f"reward.solved_by={config.reward.solved_by} names what decides, and reward.solved_at=null counts nothing "
            f"as solved; {way_out} leave solved_by out"
        )
    if algorithm.solved_band is not None:
        yield (
            f"algorithm.solved_band={list(algorithm.solved_band)} chooses groups by their solved samples, and "
            f"reward.solved_at=null counts nothing as solved; {way_out} use solved_band=null"
        )
    if algorithm.anchor_on is AnchorOn.solved and not algorithm.advantage.offline:
        yield (
            f"algorithm.anchor_on=solved imitates solved samples, and reward.solved_at=null counts nothing as solved; "
            f"{way_out} use anchor_on=better"
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


def remarks(config: Config) -> Iterator[str]:
    """What works and does less than it says; not refused, because a shorter run of a published file would be."""
    algorithm, updates = config.algorithm, config.run.updates
    optimizers = {"optimizer": algorithm.optimizer}
    if algorithm.value is not None:
        optimizers["value.optimizer"] = algorithm.value.optimizer
    for name, options in optimizers.items():
        if options.warmup_updates >= updates:
            yield (
                f"algorithm.{name}.warmup_updates={options.warmup_updates} is not over after run.updates={updates}: "
                f"the learning rate never reaches {options.learning_rate:g}; lower it, or make the run longer"
            )
    for path, moves in _moves(config).items():
        if moves >= updates:
            yield (
                f"{path}={moves} is not over after run.updates={updates}, so what it moves stays where it starts, or "
                f"does not arrive; lower it, or make the run longer"
            )
    kl = algorithm.kl
    if kl.coefficient == 0 and kl.to is not KlOptions.to:
        yield f"algorithm.kl.to={kl.to.name} does nothing with kl.coefficient=0; leave it out, or set both"
    for name in ("advantage_epsilon", "sample_std"):
        value = getattr(algorithm, name)
        if value != getattr(AlgorithmOptions, name) and not algorithm.advantage.divides:
            yield (
                f"algorithm.{name}={value} does nothing with advantage={algorithm.advantage.name}, which divides by no "
                f"standard deviation; leave it out"
            )


def _moves(config: Config) -> dict[str, int]:
    """Updates that something takes to move: options and their values."""
    window, branching = config.rollout.denoising.window, config.rollout.branching
    found = {}
    if window.kind is WindowKind.sliding:
        found["rollout.denoising.window.every"] = window.every
    if window.untrained is not None and window.untrained.start != window.untrained.final_start:
        found["rollout.denoising.window.untrained.every"] = window.untrained.every
    if branching is not None and branching.final_forks is not None:
        found["rollout.branching.moving_updates"] = branching.moving_updates
    return found
