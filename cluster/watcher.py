"""What no process of a run outlives: every process with the run's mark in its environment ends when its driver has.

Also a program, `python -I -S watcher.py MARK`, which waits until its standard input closes or its parent is gone,
however that ended, and then ends all that bear the mark. It imports the standard library alone: it starts in
milliseconds, and there is one for each run.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

VARIABLE = "DENOISERL_RUN"
"""Name of the mark, which children inherit, and those that call `setsid` or that nobody waits for, too."""
POLL_SECONDS = 1.0
SWEEP_SECONDS = 5.0
"""For processes that start others while they are ended."""


def marked(mark: str) -> list[int]:
    """Processes of this user that have the mark, without this one; none where there is no /proc."""
    wanted = f"{VARIABLE}={mark}".encode()
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if wanted in file.read().split(b"\0"):
                        found.append(int(name))
            except OSError:  # another user's, or gone
                continue
    return found


def sweep(mark: str) -> None:
    """Kill them, and what they still start meanwhile."""
    deadline = time.monotonic() + SWEEP_SECONDS
    clean = 0
    while clean < 2 and time.monotonic() < deadline:  # one that is just being executed has no environment for a moment
        found = marked(mark)
        for process in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        clean = 0 if found else clean + 1
        time.sleep(0.02)


def main() -> None:
    mark, parent = sys.argv[1], os.getppid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # sent to all that there is, with the driver
        signal.signal(number, signal.SIG_IGN)
    # Nothing is ever written: readable means closed. A copy of the other end may live on in a forked process.
    while not select.select([sys.stdin], [], [], POLL_SECONDS)[0] and os.getppid() == parent:
        pass
    sweep(mark)


if __name__ == "__main__":
    main()
