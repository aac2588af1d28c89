"""Reward functions that misbehave. A module of its own without heavy imports: the scoring process is started again, and
imports it again, after each sample that hangs."""

from __future__ import annotations

import subprocess
import time
from typing import Any


def hangs_on_some(completions: list[str], **columns: Any) -> list[float]:
    """Never returns for some; else the share of characters below 'A'."""
    while any(is_bad(text) for text in completions):
        time.sleep(1)
    return [sum(character < "A" for character in text) / max(len(text), 1) for text in completions]


def is_bad(text: str) -> bool:
    """About one in ten completions of an untrained policy."""
    return text.strip()[:1] < "+"


def hangs(completions: list[str], **columns: Any) -> list[float]:
    time.sleep(1000)
    return []


def not_a_number(completions: list[str], **columns: Any) -> list[float]:
    return [float("nan")] * len(completions)


def always_raises(completions: list[Any], **columns: Any) -> list[float]:
    raise KeyError("no such thing")


def leaves_a_daemon(completions: list[str], **columns: Any) -> list[float]:
    """The share of characters below 'A', and a process in a session of its own."""
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    return [sum(character < "A" for character in text) / max(len(text), 1) for text in completions]


def leaves_a_daemon_and_fails(completions: list[str], **columns: Any) -> list[float]:
    leaves_a_daemon(completions)
    raise ValueError("no score")
