"""Holds the scoring process and all that it ever started, ends them together, and watches how much memory they hold.

A program of its own, `python -I -S keeper.py GIB COMMAND...` (GIB `-`: unlimited), between the process that asks for
scores and the one that gives them. On Linux it is the subreaper of what it starts (`prctl(2)`): a process that calls
`setsid`, or whose parent ends, stays its descendant and is found. It ends them when the command ends, when its standard
input closes, however the other side ended, or when it gets SIGTERM; then it ends as the command did. It imports the
standard library alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn

OVER_MEMORY = 125
"""Exit status: they held more than GIB together."""
LOOK_SECONDS = 0.5
END_SECONDS = 5.0
_PR_SET_CHILD_SUBREAPER = 36
_OF_STATUS = ("RssAnon", "RssShmem", "VmSwap")
_OF_ROLLUP = ("Pss_Anon", "Pss_Shmem", "SwapPss")


def main() -> NoReturn:
    limit = None if sys.argv[1] == "-" else int(float(sys.argv[1]) * 2**30)
    keep(sys.argv[2:], limit, LOOK_SECONDS)


def keep(
    command: list[str], limit: int | None, look: float, breach: Callable[[list[int]], int] | None = None
) -> NoReturn:
    """Run the command until it ends or is ended, and end as it did.

    Args:
        limit: bytes that it and all that it starts may hold together.
        look: seconds from one look at them to the next.
        breach: is told of the processes at each look, and says with which status this one ends because of what they
            did; 0 is none.
    """
    inherited = _inherited()
    _adopt_orphans()
    for number in (signal.SIGINT, signal.SIGHUP):  # for the other side, which then ends this
        signal.signal(number, signal.SIG_IGN)
    woken, writing = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    group = MemoryGroup.made(limit) if limit else None
    kept = Kept(command, group)
    for descriptor in inherited:  # the connection is the command's: it must close with that
        with contextlib.suppress(OSError):
            os.close(descriptor)
    why = 0
    ended = False
    while not (ended or why):
        ready = select.select([0, woken], [], [], look if limit or breach else None)[0]
        arrived = os.read(woken, 1024) if woken in ready else b""
        kept.reap()
        ended = kept.status is not None or 0 in ready or signal.SIGTERM in arrived
        if not ended and (limit is not None or breach is not None):
            processes = descendants(os.getpid())
            over = limit is not None and memory_of(processes, limit) > limit
            why = OVER_MEMORY if over else breach(processes) if breach is not None else 0
    kept.end()
    if group is not None:
        why = why or (OVER_MEMORY if group.has_killed() else 0)
        group.remove()
    _end_as(kept.status or 0, why)


class Kept:
    """The command, and what it left."""

    def __init__(self, command: list[str], group: MemoryGroup | None) -> None:
        self.status: int | None = None
        """As `waitpid` gives it, once the command has ended."""
        theirs, self._lifeline = os.pipe()
        self._process = os.fork()
        if self._process == 0:
            try:
                os.setsid()
                for number in (signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGTERM):
                    signal.signal(number, signal.SIG_DFL)
                if group is not None:
                    group.enter()
                os.dup2(theirs, 0)
                os.execv(command[0], command)
            finally:
                os._exit(127)
        os.close(theirs)

    def reap(self) -> None:
        """What has ended, also what came here as an orphan."""
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self._process:
                    self.status = found[1]

    def end(self) -> None:
        """Kill them all, and what they start meanwhile."""
        deadline = time.monotonic() + END_SECONDS
        if not os.path.isdir("/proc/self"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process, signal.SIGKILL)
        while (found := descendants(os.getpid())) and time.monotonic() < deadline:
            for process in found:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.002)
            self.reap()
        self.reap()


def descendants(root: int) -> list[int]:
    """Processes below `root` that live; none where there is no /proc."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
                children.setdefault(int(parent), []).append(int(name) if state != b"Z" else 0)
    found, left = [], [root]
    while left:
        below = [process for process in children.get(left.pop(), ()) if process]
        found += below
        left += below
    return found


def memory_of(processes: Iterable[int], enough: int) -> int:
    """Bytes that they hold and could not give back: private ones and shared ones that are no file's, resident or in the
    swap. Up to `enough`, pages that several map may count several times, which is quickly said."""
    processes = list(processes)
    most = sum(_kilobytes(f"/proc/{process}/status", _OF_STATUS) or 0 for process in processes) * 1024
    if most <= enough:
        return most
    exact = [_kilobytes(f"/proc/{process}/smaps_rollup", _OF_ROLLUP) for process in processes]
    return most if None in exact else sum(each or 0 for each in exact) * 1024


def _kilobytes(path: str, names: tuple[str, ...]) -> int | None:
    """Sum of these lines; None without any of them. A process that is gone holds nothing."""
    try:
        with open(path) as file:
            lines = dict(line.split(":", 1) for line in file if ":" in line)
    except OSError:
        return 0 if not os.path.isdir(os.path.dirname(path)) else None
    found = [int(lines[name].split()[0]) for name in names if name in lines]
    return sum(found) if found else None


class MemoryGroup:
    """A control group of the kernel's, v1 or v2, where this user may make one: it counts what no process is charged
    with, such as files in /dev/shm, and is never late."""

    NAME = "denoiserl-"

    def __init__(self, folder: str) -> None:
        self._folder = folder

    @classmethod
    def made(cls, limit: int) -> MemoryGroup | None:
        for parent, name in _memory_groups():
            cls._remove_stale(parent)
            folder = f"{parent}/{cls.NAME}{os.getpid()}"
            try:
                os.mkdir(folder)
                _write(f"{folder}/{name}", limit)
                return cls(folder)
            except OSError:  # not ours to make, or without a limit of memory
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
        return None

    def enter(self) -> None:
        _write(f"{self._folder}/cgroup.procs", 0)

    def has_killed(self) -> bool:
        """Whether the kernel has ended something in it for memory."""
        for name in ("memory.oom_control", "memory.events"):
            with contextlib.suppress(OSError), open(f"{self._folder}/{name}") as file:
                counts = dict(line.split() for line in file)
                if int(counts.get("oom_kill", 0)):
                    return True
        return False

    def remove(self) -> None:
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            try:
                _remove(self._folder)
                return
            except FileNotFoundError:
                return
            except OSError:  # its processes are about to be gone
                time.sleep(0.01)

    @classmethod
    def _remove_stale(cls, parent: str) -> None:
        """Of keepers that were killed."""
        with contextlib.suppress(OSError):
            for name in os.listdir(parent):
                number = name.removeprefix(cls.NAME)
                if number != name and not os.path.isdir(f"/proc/{number}"):
                    with contextlib.suppress(OSError):
                        _remove(f"{parent}/{name}")


def _memory_groups() -> Iterator[tuple[str, str]]:
    """Folders of this process's groups, each with the name of the file that limits memory."""
    try:
        with open("/proc/self/mounts") as mounts, open("/proc/self/cgroup") as groups:
            places = [line.split()[1:4] for line in mounts]
            own = [line.rstrip("\n").split(":", 2) for line in groups]
    except OSError:
        return
    for place, kind, options in places:
        for _, controllers, path in own:
            if kind == "cgroup" and "memory" in options.split(",") and "memory" in controllers.split(","):
                yield f"{place}{path}".rstrip("/"), "memory.limit_in_bytes"
            elif kind == "cgroup2" and not controllers:
                yield f"{place}{path}".rstrip("/"), "memory.max"


def _remove(folder: str) -> None:
    """A group, with those that keepers below this one have made in it and were killed before they removed."""
    for name in os.listdir(folder):
        if os.path.isdir(f"{folder}/{name}"):
            with contextlib.suppress(FileNotFoundError):  # by its own keeper, meanwhile
                _remove(f"{folder}/{name}")
    os.rmdir(folder)


def _write(path: str, number: int) -> None:
    with open(path, "w") as file:
        file.write(str(number))


def _inherited() -> list[int]:
    """Descriptors beside the standard ones, without that of the look at them."""
    found = []
    for descriptor in map(int, os.listdir("/dev/fd")):
        with contextlib.suppress(OSError):
            os.fstat(descriptor)
            found.append(descriptor)
    return [descriptor for descriptor in found if descriptor > 2]


def _adopt_orphans() -> None:
    with contextlib.suppress(OSError, AttributeError):  # not on Linux: a process that calls setsid is lost
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end_as(status: int, why: int) -> NoReturn:
    if why:
        os._exit(why)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the command has left one, if any
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status))


if __name__ == "__main__":
    main()
