"""Ray itself: joining or starting a cluster, and reserving room for every process before the first one starts."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from cluster.options import ClusterOptions


class ClusterError(RuntimeError):
    """The cluster cannot run this job; the message says what is missing."""


@contextmanager
def joined(options: ClusterOptions) -> Iterator[None]:
    """A Ray cluster for the duration of the block: the given one, or one started here and stopped at the end."""
    already = ray.is_initialized()
    if not already:
        _join(options.address)
    try:
        yield
    finally:
        if not already:
            ray.shutdown()


def _join(address: str | None) -> None:
    # Waiting threads sleep: spinning ones slow a job down twentyfold as soon as another program wants the core.
    # Modules of the current folder, such as a user's reward functions, can be imported everywhere.
    variables = {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": os.pathsep.join(_module_path())}
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        # Inherited, not a runtime environment: the workers that Ray starts in advance would not have that and idle,
        # and the actors would wait for the agent that makes it.
        with _environment(variables):
            ray.init(address="local", include_dashboard=False, **quiet)  # whatever else runs on the machine
        return
    try:
        ray.init(address=address, runtime_env={"env_vars": variables}, **quiet)
    except ConnectionError as error:
        raise ClusterError(
            f"no Ray cluster answers at cluster.address={address}: start one with `ray start --head`, or use "
            f"cluster.address=null for one on this machine"
        ) from error


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """For the processes that the block starts."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _module_path() -> list[str]:
    return [os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])]


@contextmanager
def reserved(bundles: list[dict[str, float]], options: ClusterOptions) -> Iterator[PlacementGroup]:
    """Room for all processes at once, or an error that says what is missing."""
    total = ray.cluster_resources()
    for resource in sorted({name for bundle in bundles for name in bundle}):
        wanted, present = sum(bundle.get(resource, 0.0) for bundle in bundles), total.get(resource, 0.0)
        if wanted > present + 1e-6:
            raise ClusterError(
                f"the job needs {wanted:g} {resource} ({len(bundles)} processes), the cluster has {present:g}: lower "
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
        remove_placement_group(group)
