"""One computing thread for each test process: test machines are small and shared, and spinning threads fight."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadGroupScheduling

from tests.rl.support.cluster import ray_cluster

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """What a test enters into the tables of its process leaves them with it."""
    import models.parts  # only now: torch reads the number of threads when it is imported
    import rewards.registry
    from models.images import families as image_families
    from models.text import families as text_families

    tables = (models.parts.GIVEN, rewards.registry.GIVEN, text_families._FAMILIES, image_families._FAMILIES)
    before = [dict(table) for table in tables]
    yield
    for table, kept in zip(tables, before, strict=True):
        table.clear()
        table.update(kept)


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """One Ray for all tests that want one: it starts in seconds, and each test's actors are its own."""
    with ray_cluster(num_cpus=4):
        yield


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs Ray is known by its fixtures; files whose tests start programs of their own say so themselves.

    These come first, and together: with two workers the other one does the rest meanwhile.
    """
    for item in items:
        if "cluster" in getattr(item, "fixturenames", ()):
            item.add_marker("processes")
        if item.get_closest_marker("processes"):
            item.add_marker(pytest.mark.xdist_group("processes"))
    items.sort(key=lambda item: item.get_closest_marker("processes") is None)


class _ByFile(LoadGroupScheduling):
    """A file's tests share its fixtures, so one worker runs them all."""

    def _split_scope(self, nodeid: str) -> str:
        return super()._split_scope(nodeid).partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _ByFile:
    return _ByFile(config, log)
