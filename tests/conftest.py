"""One computing thread for each test process: test machines are small and shared, and spinning threads fight."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

STARTS_PROCESSES = {
    "test_bad_inputs",
    "test_image_bad_inputs",
    "test_image_commands",
    "test_image_training",
    "test_pairs",
    "test_reward_gradient_runs",
    "test_training",
    "test_worker",
}
"""Files whose tests start processes of their own: two Ray clusters at once would fight for cores and deadlines. These
tests run one after the other, and beside them those that need one core only."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem in STARTS_PROCESSES:
            item.add_marker("processes")
