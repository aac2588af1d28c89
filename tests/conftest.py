"""One computing thread for each test process: test machines are small and shared, and spinning threads fight."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

STARTS_RAY = {
    "test_bad_inputs",
    "test_image_bad_inputs",
    "test_image_commands",
    "test_image_training",
    "test_pairs",
    "test_reward_gradient_runs",
    "test_training",
    "test_worker",
}
"""Files whose tests start processes of their own."""


@pytest.hookimpl(tryfirst=True)  # before the groups are read
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several test processes a file stays in one of them, and so do all files that start Ray: two clusters at once
    would fight for cores and deadlines. These take longest and come first."""
    for item in items:
        name = Path(item.path).stem
        item.add_marker(pytest.mark.xdist_group("ray" if name in STARTS_RAY else str(item.path)))
    items.sort(key=lambda item: Path(item.path).stem not in STARTS_RAY)
