"""Which isolation this process uses: the first that runs a program and gives its answer back."""

from __future__ import annotations

import threading

from rewards.registry import RewardError
from rewards.sandbox.levels import Level, candidates
from rewards.sandbox.limits import Limits
from rewards.sandbox.run import SandboxError, run
from rewards.sandbox.runtime import Runtime

_PROBE = "import decimal, unicodedata\n\n\ndef double(number):\n    return 2 * number\n"
_PROBE_LIMITS = Limits(seconds=30.0, case_seconds=20.0, cpu_seconds=20.0)
_lock = threading.Lock()
_chosen: dict[tuple[Runtime, bool], Level] = {}
_allow_weak = False


def allow_weak(allowed: bool) -> None:
    """Whether limits of processes and a filter of system calls do where no namespaces can be had:
    `reward.allow_weak_sandbox`."""
    global _allow_weak
    _allow_weak = allowed


def choose(runtime: Runtime) -> Level:
    """The strongest isolation that works here with this Python, found once.

    Raises:
        RewardError: none does; says why of each.
    """
    with _lock:
        key = (runtime, _allow_weak)
        if key not in _chosen:
            _chosen[key] = _first(runtime)
        return _chosen[key]


def _first(runtime: Runtime) -> Level:
    why = []
    for level in candidates(_allow_weak):
        try:
            check(level, runtime)
            return level
        except (SandboxError, OSError) as error:
            why.append(f"{level.name}: {error}")
    tried = "; ".join(why) or "neither bwrap nor unshare is installed"
    weak = "" if _allow_weak else " or, for programs that you would run yourself, set reward.allow_weak_sandbox=true"
    raise RewardError(
        f"no sandbox for code can be made here ({tried}). Install bubblewrap, let this user make namespaces{weak}; "
        f"docs/sandbox.md says what each isolation needs"
    )


def check(level: Level, runtime: Runtime) -> None:
    """Raises SandboxError where a sandbox of this level does not run a program."""
    call = {"function": "double", "arguments": [21]}
    (outcome,) = run(_PROBE, "calls", [call], _PROBE_LIMITS, level, runtime)
    if outcome.kind != "done" or outcome.answer != "42":
        raise SandboxError(f"{level.name} does not run a trivial program: {outcome}")
