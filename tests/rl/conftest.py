from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rl.support.cluster import ray_cluster
from tests.rl.support.command_line import CommandLine


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with ray_cluster(num_cpus=4):
        yield


@pytest.fixture
def denoiserl(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> CommandLine:
    monkeypatch.setenv("COLUMNS", "500")
    return CommandLine(monkeypatch, capfd)
