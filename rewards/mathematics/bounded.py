"""Algebra under a deadline, from any thread: in a process that is killed when it takes too long.

A signal's timer works in the main thread only, and nothing in this process can interrupt a product of large integers.
"""

from __future__ import annotations

import atexit
import os
import threading
from functools import lru_cache

from rewards.mathematics.notation import Written
from rewards.options import RewardOptions, RewardTerm
from rewards.process import FunctionRaised, ProcessLost, ScoringProcess

DEADLINE = 4.0
"""Seconds that one pair may take."""
MEMORY_GIB = 4.0
"""GiB that the process may allocate, on Linux."""

_lock = threading.Lock()
_process: ScoringProcess | None = None


class Unanswered(Exception):
    """Algebra took too long or too much memory, so whether the answer is right is not known."""


def verdict(gold: Written, given: Written) -> float:
    """See `rewards.mathematics.equality.equal`; the process starts when it is first needed.

    Raises:
        Unanswered: no answer within the deadline, or the process died; also for a pair of which that is known.
    """
    answer = _known(gold, given)
    if isinstance(answer, str):
        raise Unanswered(answer)
    return answer


@lru_cache(maxsize=4096)  # a batch that fails is scored again, sample by sample
def _known(gold: Written, given: Written) -> float | str:
    global _process
    with _lock:
        if _process is None:
            _process = ScoringProcess(
                RewardOptions(
                    terms={"equal": RewardTerm(function="rewards.mathematics.equality.equal")}, memory_gib=MEMORY_GIB
                )
            )
        arguments = {"prompts": [""], "completions": [(gold, given)], "completion_ids": None, "columns": {}}
        try:
            return float(_process.call("equal", {**arguments, "update": None}, DEADLINE)["values"][0])
        except (ProcessLost, FunctionRaised) as error:
            return f"comparing the answer with the reference: {error}"


def _stop() -> None:
    if _process is not None:
        _process.stop()


def _forget() -> None:
    """In a fork, which must not talk to its parent's process."""
    global _process, _lock
    _process, _lock = None, threading.Lock()


atexit.register(_stop)
os.register_at_fork(after_in_child=_forget)
