"""Reserving room for every process before the first one starts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import ray
from ray._private import utils as ray_utils
from ray._private.accelerators.nvidia_gpu import NvidiaGPUAcceleratorManager
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from cluster.answers import answer, cause
from cluster.bounded import BoundedCall
from cluster.joining import ClusterError
from cluster.options import ClusterOptions
from cluster.signals import present

REMOVAL_SECONDS = 10.0
ANSWER_SECONDS = 10.0
"""For what Ray knows at once."""


def bundles_of(
    options: ClusterOptions, learners: int, workers: int, beside: Sequence[tuple[float, float]] = ()
) -> list[dict[str, float]]:
    """What each process needs: learners, then rollout workers, then others.

    Args:
        beside: CPUs and GPUs of each of the others.
    """
    return [
        *[_bundle(options.cpus, options.learner_gpus)] * learners,
        *[_bundle(options.cpus, options.rollout_gpus)] * workers,
        *(_bundle(*needs) for needs in beside),
    ]


def _bundle(cpus: float, gpus: float) -> dict[str, float]:
    return {"CPU": cpus, **({"GPU": float(gpus)} if gpus else {})}


def check_room(bundles: list[dict[str, float]], present: Mapping[str, float], where: str) -> None:
    """Raises ClusterError where the processes need more than there is.

    Args:
        where: what has it, such as `the cluster`.
    """
    for resource in sorted({name for bundle in bundles for name in bundle}):
        asking = [bundle[resource] for bundle in bundles if bundle.get(resource)]
        wanted, there = sum(asking), present.get(resource, 0.0)
        if wanted <= there + 1e-6:
            continue
        if resource == "GPU" and there == 0:
            advice = (
                "set cluster.learner_gpus=0 and cluster.rollout_gpus=0 (judge.gpus and gpus of reward.pools, too) to "
                "use processors"
            )
        else:
            advice = "lower cluster.learners or cluster.rollout_workers"
        raise ClusterError(
            f"the job needs {wanted:g} {resource} ({len(asking)} processes), {where} has {there:g}: {advice}, or "
            f"join a larger cluster with cluster.address"
        )


def check_this_machine(bundles: list[dict[str, float]]) -> None:
    """The same before a Ray is started here, which takes seconds, with what it will find."""
    present = {"CPU": float(ray_utils.get_num_cpus())}
    with suppress(Exception):  # Ray's own way to ask, which a later version may not have: it will then say so itself
        present["GPU"] = float(NvidiaGPUAcceleratorManager.get_current_node_num_accelerators())
        visible = NvidiaGPUAcceleratorManager.get_current_process_visible_accelerator_ids()
        if visible is not None:
            present["GPU"] = min(present["GPU"], float(len(visible)))
    if "GPU" not in present:
        bundles = [{"CPU": bundle["CPU"]} for bundle in bundles]
    check_room(bundles, present, "this machine")


@contextmanager
def reserved(bundles: list[dict[str, float]], options: ClusterOptions) -> Iterator[PlacementGroup]:
    """Room for all processes at once, or an error that says what is missing."""
    seconds = options.startup_timeout_seconds
    check_room(bundles, answer(ray.cluster_resources, seconds, "say what the cluster has"), "the cluster")
    group = answer(lambda: placement_group(bundles, strategy="PACK"), seconds, "take the order for room")
    try:
        started = time.monotonic()
        if not answer(lambda: group.wait(seconds), seconds + ANSWER_SECONDS, "make room"):
            waited = time.monotonic() - started
            free = answer(ray.available_resources, ANSWER_SECONDS, "say what is free")
            raise ClusterError(
                f"no room for {len(bundles)} processes after {waited:.0f} s: they need {bundles}, "
                f"free are { {name: free.get(name, 0.0) for name in bundles[0]} }; "
                + cause("another job may hold the rest: wait for it, or lower what cluster.* asks for")
            )
        yield group
    finally:
        # Else it goes with the job.
        BoundedCall(remove_placement_group, group).ends_within(present().patience(REMOVAL_SECONDS))
