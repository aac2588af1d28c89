"""One computing thread for each test process: test machines are small and shared, and spinning threads fight."""

from __future__ import annotations

import functools
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from models.exact_products import keep_rows_apart
from tests.rl.support.cluster import ray_cluster

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
keep_rows_apart()
# As in a terminal: what `nohup` or a shell's `&` ignores is ignored by all that tests start, and signals are tested.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs Ray is known by its fixtures; files whose tests start programs of their own say so themselves. These
    come first: with two workers the other one does the rest meanwhile."""
    for item in items:
        if "cluster" in getattr(item, "fixturenames", ()):
            item.add_marker("processes")
    items.sort(key=lambda item: not starts_processes(item.path))


@functools.cache
def starts_processes(file: Path) -> bool:
    return re.search(r"\bcluster(: None)?[,)\n]|mark\.processes", file.read_text()) is not None


ALONE = ("tests/test_quickstart.py",)
"""Files whose tests start processes for minutes, and share none with others."""


class _ByFile(LoadScopeScheduling):
    """Files whose tests start processes are one worker's, so that there is one Ray; of the others each file is."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file in ALONE:
            return file
        return "processes" if starts_processes(self.config.rootpath / file) else file


@pytest.hookimpl(optionalhook=True)  # mutants run the tests without plugins
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _ByFile:
    return _ByFile(config, log)
