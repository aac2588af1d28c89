"""Mathematical answers: 1 for what says the same as the reference.

The reference is read to its last sign, or the row is in error: nobody can be right or wrong about what was not
understood. So is an answer, or it is wrong; that is counted as `malformed`. Algebra runs in a process of its own, under
a deadline that holds in any thread; what does not meet it is not scored.

The rules, the conventions and the known limits are in `docs/mathematics.md`.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from math import isfinite
from numbers import Real
from typing import Any

from rewards.mathematics.judge import Malformed, judge
from rewards.mathematics.notation import Unreadable, Written
from rewards.options import RewardOptions, RewardTerm
from rewards.scoring.process import DeadlinePassed, FunctionRaised, ProcessLost, ScoringProcess

DEADLINE = 2.0
"""Seconds of algebra that one pair may take. A process that replaces a killed one needs one or two more."""
GRACE = 1.0
"""Seconds after which a process that does not stop at the deadline is killed."""
MEMORY_GIB = 4.0
"""GiB that the process may allocate, on Linux."""

_lock = threading.Lock()
_process: ScoringProcess | None = None
_pair = threading.local()
"""`left`: seconds of algebra that the pair which this thread scores has left."""


class NotScored(ValueError):
    """Some samples have no score; says why."""


def math(
    completions: list[str],
    answer: list[str | None] | None = None,
    solution: list[str | None] | None = None,
    log_malformed: Callable[[int, str, str], None] | None = None,
    **_: Any,
) -> list[float | None]:
    r"""1 for a right answer, 0 for a wrong or missing one, None where the reference is blank or None: a problem of
    another data set, which has none.

    Everything that a completion marks as its answer and does not take back must be right: see
    `rewards.mathematics.claims`.

    Args:
        answer: N references, bare or boxed. `solution`, the name that TRL uses, is read when there is no `answer`.
        log_malformed: is told of each answer that cannot be read: its place, what reads it, and why it cannot.

    Raises:
        NotScored: a reference is empty or cannot be read, or algebra did not end in time. The others are scored by
            calls of their own, as `Scorer` does.
    """
    references = answer if answer is not None else solution
    if references is None:
        raise ValueError("the reward `math` needs a dataset column `answer` or `solution`")
    scores: list[float | None] = []
    reasons: list[str] = []
    for index, (completion, reference) in enumerate(zip(completions, references, strict=True)):
        score = None
        if reference is not None and str(reference).strip():
            _pair.left = DEADLINE
            try:
                score = judge(completion, _text_of(reference), algebra)
            except (Unreadable, Unanswered) as error:
                reasons.append(f"sample {index}: {error}")
            except Malformed as error:
                score = 0.0
                if log_malformed is not None:
                    log_malformed(index, "math", str(error))
        scores.append(score)
    if reasons:
        more = f", and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        raise NotScored("; ".join(reasons[:3]) + more)
    return scores


def _text_of(reference: Any) -> str:
    """A text, or a number's digits. What else Python can print is no answer of anybody's: a set's text `{71}` would be
    read as mathematics, and infinity's as a word.

    Raises:
        Unreadable: it is neither.
    """
    if isinstance(reference, str):
        return reference
    if not isinstance(reference, Real) or isinstance(reference, bool) or not isfinite(reference):
        raise Unreadable(
            f"the reference is {reference!r:.80}, a {type(reference).__name__}: give a text, or a finite number"
        )
    return str(reference)


class Unanswered(Exception):
    """Algebra took too long or too much memory, so whether the answer is right is not known."""


def algebra(gold: Written, given: Written) -> float:
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
    """Raises Unanswered where there was less than the whole deadline for it: then it is not known."""
    late = f"comparing the answer with the reference: no answer within {DEADLINE:g} s"
    with _lock:
        process = _started()
        left, start = getattr(_pair, "left", DEADLINE), time.monotonic()
        if left <= 0:
            raise Unanswered(late)
        arguments = {"prompts": [""], "completions": [(gold, given)], "completion_ids": None, "update": None}
        try:
            reply = process.call("equal", {**arguments, "columns": {"seconds": [left]}}, left + GRACE)
            return float(reply["values"][0])
        except (ProcessLost, FunctionRaised) as error:
            timed_out = isinstance(error, DeadlinePassed) or "TimeoutError" in str(error)
            why = late if timed_out else f"comparing the answer with the reference: {error}"
        finally:
            _pair.left = left - (time.monotonic() - start)
    if left < DEADLINE:
        raise Unanswered(why)
    return why


def _started() -> ScoringProcess:
    """The start is not the pair's time: it would lose the first one on a busy machine."""
    global _process
    if _process is None:
        _process = ScoringProcess(
            RewardOptions(
                terms={"equal": RewardTerm(function="rewards.mathematics.equality.equal")}, memory_gib=MEMORY_GIB
            )
        )
    _process.start()
    return _process


def _stop() -> None:
    if _process is not None:
        _process.stop()


def _forget() -> None:
    """In a fork, which must not talk to its parent's process."""
    global _process, _lock
    _process, _lock = None, threading.Lock()


atexit.register(_stop)
os.register_at_fork(after_in_child=_forget)
