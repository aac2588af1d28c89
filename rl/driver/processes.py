"""Starting and watching the processes of a run. Every wait here has a deadline and names who missed it."""

from __future__ import annotations

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
from rewards.registry import RewardError
from rl.data.rows import DataError
from rl.driver.actors import LearnerActor, RewardActor, RolloutActor
from rl.driver.travel import travelling
from rl.modality.trial import Trial
from rl.run.start import Arrivals
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
    reward: dict[str, Any]
    learners: dict[str, Any]


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
    bundles = bundles_of(cluster, learners, workers)
    with reserved(bundles, cluster) as group:

        def create() -> Processes:
            return _created(config, group, sent, learners, workers, printed)

        processes = answer(create, cluster.startup_timeout_seconds, "take the order for processes")
        try:
            try:
                _make_ready(processes, cluster.startup_timeout_seconds, trial, told)
            except ActorDied as error:
                raise ClusterError(f"{error}. {died_starting()}") from error
            yield processes
        except (DataError, RewardError, CheckpointError, TrajectoryError, PartError) as error:
            raise RunFailed(str(error)) from error
        finally:
            for handles in (processes.rollout, processes.reward, processes.learners):
                for handle in handles.values():
                    ray.kill(handle)


def _created(
    config: Config, group: PlacementGroup, sent: Any, learners: int, workers: int, printed: Path | None
) -> Processes:
    """Handles; the processes themselves are still to come."""
    cluster = config.cluster

    def actor(kind: type, name: str, index: int, gpus: int, restarts: int) -> Any:
        return ray.remote(kind).options(
            name=f"{config.run.name}/{name}",
            num_cpus=cluster.cpus,
            num_gpus=gpus,
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index),
            max_restarts=restarts,
        )

    # Rewards run in a child process of their own and are not worth a core.
    reward = {
        f"reward-{i}": ray.remote(RewardActor)
        .options(name=f"{config.run.name}/reward-{i}", num_cpus=0, max_restarts=-1)
        .remote(sent, printed and printed.absolute() / f"reward-{i}.txt")
        for i in range(cluster.reward_workers if workers else 0)
    }
    return Processes(
        reward=reward,
        learners={
            f"learner-{rank}": actor(LearnerActor, f"learner-{rank}", rank, cluster.learner_gpus, 0).remote(
                sent, rank, _threads(config, learners)
            )
            for rank in range(learners)
        },
        rollout={
            f"rollout-{i}": actor(RolloutActor, f"rollout-{i}", learners + i, cluster.rollout_gpus, -1).remote(
                sent, _threads(config, workers)
            )
            for i in range(workers)
        },
    )


def _make_ready(processes: Processes, seconds: float, trial: Trial | None, told: Callable[[str], None]) -> None:
    kinds = {"reward": processes.reward, "rollout": processes.rollout, "learner": processes.learners}
    arrived = Arrivals(kinds, told)
    waiting = {name: handle.ready.remote() for name, handle in (processes.reward | processes.rollout).items()}
    if trial is not None and processes.reward:
        waiting[TRIED] = next(iter(processes.reward.values())).try_out.remote(trial)
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
