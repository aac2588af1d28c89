"""Starting and watching the processes of a run. Every wait here has a deadline and names who missed it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.answers import answer, cause
from cluster.joining import ClusterError, ray_folder, shadowed
from cluster.placement import bundles_of, reserved
from configs.errors import UserError
from configs.schema import Config
from models.parts import PartError
from models.text.families import CheckpointError
from rewards.judge.terms import JudgeError
from rewards.options import PoolOptions
from rewards.registry import RewardError
from rl.data.rows import DataError
from rl.driver.actors import LearnerActor, RewardActor, RolloutActor
from rl.driver.travel import travelling
from rl.modality.trial import Trial
from rl.run.start import Arrivals
from rl.serving.judge import FOLDER, JudgeActor, asked_on_ray
from rollout.trajectory import TrajectoryError

TRIED = "the first call of the rewards"
PRINTED = "printed"
"""Folder of a run for what reward functions print, a file for each worker."""


class RunFailed(RuntimeError):
    """A mistake in the data, a reward, a checkpoint or an option that showed only when the run was under way."""


def check_module_path() -> None:
    """Raises UserError where the processes on Ray would import another `rl` than this one."""
    if found := shadowed(Path(__file__).parents[1]):
        raise UserError(
            f"{found} has the name of a package of DenoiseRL, and the processes of a run would import it instead: "
            f"start from another folder, take its folder off PYTHONPATH, or rename it"
        )


@dataclass(frozen=True)
class Processes:
    """Handles by name; a name is what error messages, logs and `ray list actors` show."""

    rollout: dict[str, Any]
    reward: dict[str, dict[str, Any]]
    """By pool (`pool_kind`)."""
    learners: dict[str, Any]
    judge: Any | None = None
    """The owner of the judge that the run serves."""


def pool_kind(pool: str) -> str:
    """What the workers of a pool of rewards are called, without their number."""
    return f"reward-{pool}" if pool else "reward"


def pool_options(config: Config, pool: str) -> PoolOptions:
    return config.reward.pools[pool] if pool else PoolOptions(workers=config.cluster.reward_workers)


def beside(config: Config) -> list[tuple[float, float]]:
    """CPUs and GPUs of what is placed beside learners and rollout workers: the judge, and workers of pools."""
    found: list[tuple[float, float]] = [] if config.judge is None else [config.judge.needs]
    for pool in config.reward.by_pool:
        options = pool_options(config, pool)
        found += [options.needs] * options.workers if any(options.needs) else []
    return found


@contextmanager
def started(
    config: Config,
    generating: bool,
    learning: bool,
    *,
    trial: Trial | None = None,
    printed: Path | None = None,
    told: Callable[[str], None] = lambda step: None,
) -> Iterator[Processes]:
    """Place, start and load every process; end them all when the block is left, however it is left.

    Args:
        trial: a first call of the rewards, which start first.
        printed: folder for what they print.
        told: hears of each step that is done.
    """
    cluster = config.cluster
    sent = travelling(config)
    learners = cluster.learners if learning else 0
    workers = cluster.rollout_workers if generating else 0
    served = config.judge if workers else None
    bundles = bundles_of(cluster, learners, workers, beside(config) if workers else ())
    with reserved(bundles, cluster) as group:

        def create() -> Processes:
            return _created(config, group, sent, learners, workers, printed)

        processes = answer(create, cluster.startup_timeout_seconds, "take the order for processes")
        try:
            starting = 0.0 if served is None else served.startup_seconds
            try:
                _make_ready(processes, max(cluster.startup_timeout_seconds, starting), trial, told)
            except ActorDied as error:
                raise ClusterError(f"{error}. {died_starting()}") from error
            yield processes
        except (DataError, RewardError, JudgeError, CheckpointError, TrajectoryError, PartError) as error:
            raise RunFailed(str(error)) from error
        finally:
            for handles in (processes.rollout, *processes.reward.values(), processes.learners):
                for handle in handles.values():
                    ray.kill(handle)
            if processes.judge is not None:
                ray.kill(processes.judge)  # and with it what it started


def _created(
    config: Config, group: PlacementGroup, sent: Any, learners: int, workers: int, printed: Path | None
) -> Processes:
    """Handles; the processes themselves are still to come."""
    cluster = config.cluster

    def actor(kind: type, name: str, index: int, needs: tuple[float, float], restarts: int, **options: Any) -> Any:
        """In the bundle of this number."""
        return ray.remote(kind).options(
            name=f"{config.run.name}/{name}",
            num_cpus=needs[0],
            num_gpus=needs[1],
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index),
            max_restarts=restarts,
            **options,
        )

    placed = itertools.count(learners + workers)  # in the order of `beside`
    judge = None
    if (served := config.judge) is not None and workers:
        log = printed and printed.absolute().parent / FOLDER / "server.txt"
        judge = actor(JudgeActor, "judge", next(placed), served.needs, -1, max_concurrency=8).remote(served, log)
    asked = None if judge is None else asked_on_ray(f"{config.run.name}/judge")

    def reward_worker(name: str, needs: tuple[float, float], pool: str | None) -> Any:
        """Rewards run in a child process of their own: a worker is not worth a core, unless its pool says so."""
        if any(needs):
            kind = actor(RewardActor, name, next(placed), needs, -1)
        else:
            kind = ray.remote(RewardActor).options(name=f"{config.run.name}/{name}", num_cpus=0, max_restarts=-1)
        return kind.remote(sent, printed and printed.absolute() / f"{name}.txt", asked, pool)

    pools = config.reward.by_pool if workers else {}
    reward = {
        pool_kind(pool): {
            name: reward_worker(name, options.needs, pool if len(pools) > 1 else None)
            for name in (f"{pool_kind(pool)}-{index}" for index in range(options.workers))
        }
        for pool, options in ((pool, pool_options(config, pool)) for pool in pools)
    }
    return Processes(
        judge=judge,
        reward=reward,
        learners={
            f"learner-{rank}": actor(
                LearnerActor, f"learner-{rank}", rank, (cluster.cpus, cluster.learner_gpus), 0
            ).remote(sent, rank, _threads(config, learners))
            for rank in range(learners)
        },
        rollout={
            f"rollout-{i}": actor(
                RolloutActor, f"rollout-{i}", learners + i, (cluster.cpus, cluster.rollout_gpus), -1
            ).remote(sent, _threads(config, workers))
            for i in range(workers)
        },
    )


def _make_ready(processes: Processes, seconds: float, trial: Trial | None, told: Callable[[str], None]) -> None:
    rewards = {name: handle for workers in processes.reward.values() for name, handle in workers.items()}
    kinds = {"reward": rewards, "rollout": processes.rollout, "learner": processes.learners}
    kinds |= {} if processes.judge is None else {"judge": {"judge": processes.judge}}
    arrived = Arrivals(kinds, told)
    waiting = {name: handle.ready.remote() for name, handle in (rewards | processes.rollout).items()}
    if processes.judge is not None:
        waiting["judge"] = processes.judge.ready.remote()
    for pool, workers in processes.reward.items() if trial is not None else ():
        tried = TRIED if len(processes.reward) == 1 else f"{TRIED} of {pool}"
        waiting[tried] = next(iter(workers.values())).try_out.remote(trial)
    if processes.learners:
        store = {"learner-0's store": processes.learners["learner-0"].open_store.remote()}
        ((host, port),) = gather(store, seconds, "start", beside=waiting, arrived=arrived).values()
        waiting |= {name: handle.build.remote(host, port) for name, handle in processes.learners.items()}
    gather(waiting, seconds, "start", arrived=arrived)


def gather(
    waiting: Mapping[str, ray.ObjectRef],
    seconds: float,
    what: str,
    beside: Mapping[str, ray.ObjectRef] | None = None,
    arrived: Callable[[str], None] = lambda name: None,
) -> dict[str, Any]:
    """Results by name. An error in one is raised at once, while the others may still be waiting for it.

    Args:
        beside: others under way, whose error is raised as soon, and whose results nobody waits for.
        arrived: hears of each that is there.
    """
    pending = {reference: name for name, reference in {**(beside or {}), **waiting}.items()}
    results: dict[str, Any] = {}
    while len(results) < len(waiting):
        done, _ = ray.wait(list(pending), num_returns=1, timeout=seconds)
        if not done:
            raise ClusterError(
                f"{', '.join(sorted(pending.values()))} did not {what} within {seconds:g} s. "
                + cause(
                    "Raise the deadline (cluster.startup_timeout_seconds, cluster.step_timeout_seconds) if that is too "
                    "short for this model; otherwise see the actor's log under the Ray session folder"
                )
            )
        for reference in done:
            name = pending.pop(reference)
            result = result_of(reference, name)
            arrived(name)
            if name in waiting:
                results[name] = result
    return results


def result_of(reference: ray.ObjectRef, name: str) -> Any:
    """The finished result; an exception of the actor's own code is raised as itself."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayActorError as error:
        raise ActorDied(name, str(error)) from error


class ActorDied(ClusterError):
    """A process ended: killed, out of memory, or its node was lost."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} died: {reason.splitlines()[0].rstrip('.') if reason else 'no reason given'}")
        self.name = name


def died_starting() -> str:
    """Why it may have, and what to do, as sentences."""
    return cause(
        f"It ended while it started: give the same command again; if that recurs, see in its log under "
        f"{ray_folder()}/session_latest/logs what ends it, and start fewer processes (cluster.*) if memory is full"
    )


def _threads(config: Config, processes_of_kind: int) -> int:
    return config.cluster.threads or max(1, (psutil.cpu_count(logical=False) or 1) // max(processes_of_kind, 1))
