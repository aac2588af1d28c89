"""A reward that takes its time, so that a fault meets a run in the middle of it."""

from __future__ import annotations

import time
from typing import Any

from tests.rl.support.rewards import share_of_ones


def slow_share_of_ones(completions: list[str], **columns: Any) -> list[float]:
    time.sleep(0.4)
    return share_of_ones(completions)
