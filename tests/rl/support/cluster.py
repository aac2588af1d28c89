"""A real Ray on this machine, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from cluster.signals import handlers_kept

ROOT = Path(__file__).parents[3]


@contextmanager
def ray_cluster(num_cpus: int) -> Iterator[None]:
    with handlers_kept():  # Ray installs one that ends the tests, and that runs would take for somebody else's
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            log_to_driver=False,
            runtime_env={"env_vars": {"PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}},
        )
    yield
    ray.shutdown()
