"""What the user is told if Ray ends this process while it connects, in place of Ray's own lines.

Also a program, `python -I -S teller.py LINES FIX`, which reads from the file descriptor LINES what the driver and Ray
write to standard error, and from its standard input whether the driver has come through: a word, or the end if it was
ended. It imports the standard library alone, as the watcher does.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys

POLL_SECONDS = 1.0
LATE = "Timeout ("
"""How `faulthandler` begins, which ends the driver at the deadline."""
OF_RAY = re.compile(r"\[[-\d]+ [\d:,]+ ([A-Z]) [^]]*\](?: \S+\.(?:cc|h):\d+:)? *(.*)")
_LIMIT = 300
"""Characters of Ray's own reason that are shown."""


def told(lines: str, ended: bool, fix: str) -> str:
    """What to show of what was written: all that is not Ray's, and if the driver was ended by it, why.

    Args:
        ended: the driver is gone.
        fix: what may be done then, as a sentence.
    """
    shown: list[str] = []
    for line in lines.splitlines():
        of_ray = OF_RAY.match(line)
        if ended and line.startswith(LATE):
            why = f"Ray has not let this process in within {line.removeprefix(LATE).partition(')')[0]} (h:mm:ss): its "
            why += "control store (gcs_server) or its raylet is dead or frozen, or this machine is too busy"
            return "\n".join([*shown, f"error: {why}. {fix}\n"])
        if ended and of_ray and of_ray[1] in "EFC":  # what follows is of the same kind
            why = of_ray[2].partition(". ")[0].rstrip(".")[:_LIMIT]
            return "\n".join([*shown, f"error: Ray has ended this process while it connected: {why}. {fix}\n"])
        if not of_ray:
            shown.append(line)
    return "".join(f"{line}\n" for line in shown)


def main() -> None:
    source, fix, driver = int(sys.argv[1]), sys.argv[2], os.getppid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # they end the driver, and this then has to speak
        signal.signal(number, signal.SIG_IGN)
    os.set_blocking(source, False)
    lines, word, waiting = b"", b"", True
    while waiting:
        ready, _, _ = select.select([sys.stdin, source], [], [], POLL_SECONDS)
        if sys.stdin in ready:
            word, waiting = os.read(sys.stdin.fileno(), 64), False
        waiting = waiting and os.getppid() == driver  # a copy of the other end may live on in a forked process
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(source, 65536):
                lines += piece
    with contextlib.suppress(OSError):
        sys.stderr.write(told(lines.decode(errors="replace"), not word, fix))
        sys.stderr.flush()


if __name__ == "__main__":
    main()
