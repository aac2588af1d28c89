"""Reserving room for every process before the first one starts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from cluster.bounded import BoundedCall
from cluster.joining import ClusterError
from cluster.options import ClusterOptions
from cluster.signals import present

REMOVAL_SECONDS = 10.0


@contextmanager
def reserved(bundles: list[dict[str, float]], options: ClusterOptions) -> Iterator[PlacementGroup]:
    """Room for all processes at once, or an error that says what is missing."""
    total = ray.cluster_resources()
    for resource in sorted({name for bundle in bundles for name in bundle}):
        wanted, there = sum(bundle.get(resource, 0.0) for bundle in bundles), total.get(resource, 0.0)
        if wanted > there + 1e-6:
            raise ClusterError(
                f"the job needs {wanted:g} {resource} ({len(bundles)} processes), the cluster has {there:g}: lower "
                f"cluster.learners or cluster.rollout_workers, or join a larger cluster with cluster.address"
            )
    group = placement_group(bundles, strategy="PACK")
    try:
        started = time.monotonic()
        if not group.wait(options.startup_timeout_seconds):
            free = ray.available_resources()
            raise ClusterError(
                f"no room for {len(bundles)} processes after {time.monotonic() - started:.0f} s: they need {bundles}, "
                f"free are { {name: free.get(name, 0.0) for name in bundles[0]} }; another job may hold the rest"
            )
        yield group
    finally:
        # Else it goes with the job.
        BoundedCall(remove_placement_group, group).ends_within(present().patience(REMOVAL_SECONDS))
