"""The first process of a sandbox: it runs a program on one case after the other and says what came of each.

It never executes a line of the program itself, and never reads a test: each case has a process of its own, forked from
this one before anything was read. Called with two descriptors, of the work to do and of the report, a line of JSON for
each case; `rewards.sandbox.run` is the other side. Whoever reads the report trusts that it is this process's, and takes
the answers in it for what they are, the program's.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from . import frames, program, tests

_NULL = "/dev/null"
_MEBI = 2**20
_DESCRIPTORS = 64


def main(work: int, report: int) -> NoReturn:
    with contextlib.suppress(PermissionError):  # it leads a group already
        os.setsid()  # signals to a process group reach those outside of a namespace, too
    header, ends = _read(work)
    sys.path += header["path"]
    if header["filter"] is not None:
        from . import kernel  # while its file can be read

        _become(header["uid"])
        kernel.hide()
    else:
        _become(header["uid"])
    _limit(header)
    os.chdir(header["folder"])
    woken, writing = os.pipe()
    for descriptor in (woken, writing):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    harness = Harness(header, work, woken)
    _say(report, {"kind": "started"})
    for begin, end in itertools.pairwise(ends):
        if _say(report, harness.run(begin, end)) != "done" and header["stop_early"]:
            break
    os._exit(0)


def _read(work: int) -> tuple[dict[str, Any], list[int]]:
    """The header, and where each case begins and the last one ends."""
    length = int.from_bytes(os.pread(work, 8, 0), "big")
    header = json.loads(read_at(work, 8, length))
    ends = [8 + length]
    for size in header["cases"]:
        ends.append(ends[-1] + size)
    return header, ends


def read_at(work: int, begin: int, length: int) -> bytes:
    found = b""
    while len(found) < length:
        part = os.pread(work, length - len(found), begin + len(found))
        if not part:
            raise EOFError("the work ends early")
        found += part
    return found


def _become(uid: int | None) -> None:
    """Root leaves its rights here, before it has read a program."""
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)


def _limit(header: dict[str, Any]) -> None:
    limits = header["limits"]
    _set(resource.RLIMIT_CORE, 0)
    _set(resource.RLIMIT_MEMLOCK, 0)
    _set(resource.RLIMIT_MSGQUEUE, 0)
    _set(resource.RLIMIT_NOFILE, _DESCRIPTORS)
    _set(resource.RLIMIT_FSIZE, int(limits["file_mib"] * _MEBI))
    if header["alone"]:  # else it would count the user's other processes
        _set(resource.RLIMIT_NPROC, int(limits["processes"]) + 3)


def _set(what: int, limit: int, above: int = 0) -> None:
    hard = resource.getrlimit(what)[1]
    hard = limit + above if hard == resource.RLIM_INFINITY else min(hard, limit + above)
    resource.setrlimit(what, (min(limit, hard), hard))


def _say(report: int, outcome: dict[str, Any]) -> str:
    """Its kind; the rest is not kept where the next case's process would inherit it."""
    line = json.dumps(outcome).encode() + b"\n"
    while line:
        line = line[os.write(report, line) :]
    return outcome["kind"]


class Harness:
    def __init__(self, header: dict[str, Any], work: int, woken: int) -> None:
        self._header, self._work, self._woken = header, work, woken
        self._limits = header["limits"]
        self._most = int(self._limits["output_kib"] * 1024)

    def run(self, begin: int, end: int) -> dict[str, Any]:
        """What came of a case: `kind`, `text` that explains it, `answer`."""
        deadline = time.monotonic() + self._limits["case_seconds"]
        case = (begin, end - begin)
        outcome = {"stdio": self._stdio, "calls": self._call, "apart": self._apart, "within": self._within}[
            self._header["mode"]
        ](case, deadline)
        if self._header["alone"]:  # nobody else lives here
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(-1, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        return outcome

    def _stdio(self, case: tuple[int, int], deadline: float) -> dict[str, Any]:
        text = read_at(self._work, *case)
        source, feed = os.pipe()
        printed, out = os.pipe()
        told, telling = os.pipe()
        process = self.start(lambda: program.run_script(self._header, telling), {0: source, 1: out}, (telling,))
        for descriptor in (source, out, telling):
            os.close(descriptor)
        ended = self._watch(process, deadline, {printed: self._most, told: 2**16}, (feed, text))
        outcome = self._outcome(ended, ended.read[told])
        outcome["answer"] = ended.read[printed].decode("utf-8", "replace")
        return outcome

    def _call(self, case: tuple[int, int], deadline: float) -> dict[str, Any]:
        told, telling = os.pipe()

        def work() -> None:
            call = read_at(self._work, *case)
            os.close(self._work)
            program.run_call(self._header, json.loads(call), telling)

        process = self.start(work, {}, (telling, self._work))
        os.close(telling)
        ended = self._watch(process, deadline, {told: self._most + 2**16})
        return self._outcome(ended, ended.read[told])

    def _apart(self, case: tuple[int, int], deadline: float) -> dict[str, Any]:
        """Tests run in a process of their own, which asks the program's for what it calls."""
        asked, asking = os.pipe()
        answered, answering = os.pipe()
        server = self.start(lambda: program.serve(self._header, asked, answering), {}, (asked, answering))
        os.close(asked)
        os.close(answering)
        told, telling = os.pipe()

        def work() -> None:
            test = read_at(self._work, *case)
            os.close(self._work)
            tests.run(self._header, json.loads(test), asking, answered, telling, self._most)

        tester = self.start(work, {}, (asking, answered, telling, self._work))
        for descriptor in (asking, answered, telling):
            os.close(descriptor)
        ended = self._watch(tester, deadline, {told: self._most})
        outcome = self._outcome(ended, ended.read[told])
        status = _killed(server)
        if outcome["kind"] == "lost":  # the tester saw its program go
            outcome["kind"] = _kind_of(status)
        return outcome

    def _within(self, case: tuple[int, int], deadline: float) -> dict[str, Any]:
        """Tests run in the program's process, once it is loaded; what says that they ended well is not known before."""
        asked, asking = os.pipe()
        told, telling = os.pipe()
        process = self.start(lambda: program.run_tests(self._header, asked, telling), {}, (asked, telling))
        os.close(asked)
        os.close(telling)
        nonce = os.urandom(16).hex()
        loaded, hand_over = os.pipe()

        def work() -> None:
            os.read(loaded, 1)
            test = json.loads(read_at(self._work, *case)) | {"nonce": nonce}
            frames.write_frame(asking, test)

        courier = self.start(work, {}, (loaded, asking, self._work))
        os.close(loaded)
        os.close(asking)
        ended = self._watch(process, deadline, {told: self._most}, first=hand_over)
        os.close(hand_over)
        _killed(courier)
        said = ended.read[told].removeprefix(program.LOADED)
        outcome = self._outcome(ended, said)
        if outcome["kind"] == "done" and outcome["answer"] != nonce:
            return {"kind": "failed", "text": "the tests did not come to their end", "answer": ""}
        return {**outcome, "answer": ""}

    def start(self, work: Callable[[], None], standard: dict[int, int], kept: tuple[int, ...]) -> int:
        """A process with nothing open but what it is given."""
        process = os.fork()
        if process:
            return process
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            null = os.open(_NULL, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(standard.get(descriptor, null), descriptor)
            for descriptor in range(3, _DESCRIPTORS):
                if descriptor not in kept:
                    with contextlib.suppress(OSError):
                        os.close(descriptor)
            _set(resource.RLIMIT_DATA, int(self._limits["memory_mib"] * _MEBI))
            _set(resource.RLIMIT_CPU, max(1, round(self._limits["cpu_seconds"] + 0.49)), above=1)
            if self._header["filter"] is not None:
                from . import kernel

                kernel.filter_calls(bytes.fromhex(self._header["filter"]))
            work()
        except BaseException:  # what is not said otherwise is an end without an answer
            os._exit(1)
        os._exit(0)

    def _watch(
        self,
        process: int,
        deadline: float,
        reading: dict[int, int],
        feeding: tuple[int, bytes] | None = None,
        first: int | None = None,
    ) -> Ended:
        """Wait for the process while its pipes are read, each up to so many bytes.

        Args:
            feeding: a pipe, and what is written into it.
            first: is written to when the program is loaded.
        """
        ended = Ended(dict.fromkeys(reading, b""))
        opened = set(reading)
        feed, text = feeding if feeding is not None else (-1, b"")
        if feed >= 0:
            os.set_blocking(feed, False)
        while True:
            if ended.status is None:
                found, status = os.waitpid(process, os.WNOHANG)
                ended.status = status if found else None
            left = deadline - time.monotonic() if ended.status is None else 0.0
            if ended.status is None and (left <= 0 or ended.over):
                ended.late = not ended.over
                ended.status = _killed(process)
                left = 0.0
            ready, writable, _ = select.select([*opened, self._woken], [feed] if feed >= 0 else [], [], max(left, 0))
            if self._woken in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._woken, 1024)
            for descriptor in opened & set(ready):
                part = os.read(descriptor, 2**16)
                ended.read[descriptor] += part
                ended.over |= len(ended.read[descriptor]) > reading[descriptor]
                if not part or ended.over:
                    opened.discard(descriptor)
                if first is not None and ended.read[descriptor].startswith(program.LOADED):
                    os.write(first, b"!")
                    first = None
            if writable:
                try:
                    text = text[os.write(feed, text) :]
                except BlockingIOError:
                    pass
                except BrokenPipeError:
                    text = b""
                if not text:
                    os.close(feed)
                    feed = -1
            if ended.status is not None and not (opened & set(ready)):
                break
        for descriptor in (*reading, *([feed] if feed >= 0 else [])):
            os.close(descriptor)
        return ended

    def _outcome(self, ended: Ended, said: bytes) -> dict[str, Any]:
        if ended.over:
            return {"kind": "output", "text": f"more than {self._most} bytes", "answer": ""}
        if ended.late:
            text = f"no end within {self._limits['case_seconds']:g} seconds"
            return {"kind": "timeout", "text": text, "answer": ""}
        status = ended.status or 0
        if os.WIFSIGNALED(status):
            return {"kind": _kind_of(status), "text": f"signal {os.WTERMSIG(status)}", "answer": ""}
        try:
            told = json.loads(said)
            outcome = {name: told[name] for name in ("kind", "text", "answer")}
            if not all(isinstance(value, str) for value in outcome.values()):
                raise TypeError
            return outcome
        except Exception:  # a program can write there, too
            text = f"the process ended with status {os.WEXITSTATUS(status)} before it answered"
            return {"kind": "killed", "text": text, "answer": ""}


class Ended:
    """How a process ended."""

    def __init__(self, read: dict[int, bytes]) -> None:
        self.read = read
        self.status: int | None = None
        self.late = self.over = False


def _killed(process: int) -> int:
    """Its status, which is not that of this end where it had ended before."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(process, 0)[1]
    return 0


def _kind_of(status: int) -> str:
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
        return "timeout"
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXFSZ:
        return "output"
    return "killed"


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
