"""One program, one sandbox: what is sent in, and what comes out."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from rewards.sandbox import levels, seccomp
from rewards.sandbox.guard import REASONS
from rewards.sandbox.inside import kernel
from rewards.sandbox.levels import BOOT, OUR_FOLDER, Level, Stay
from rewards.sandbox.limits import Limits
from rewards.sandbox.runtime import Runtime

Mode = Literal["stdio", "calls", "apart", "within"]
_REPORT_BYTES = 2**26
_SLACK_SECONDS = 30.0
"""That a guard may need beyond the limit that it keeps, on a busy machine."""


class SandboxError(Exception):
    """A sandbox could not be made or was ended from outside: nothing is known of the program."""


@dataclass(frozen=True)
class Outcome:
    """What came of one case, as the harness tells it."""

    kind: str
    """done, failed (tests), exception, timeout, memory, output, processes, killed, not_data, tests_not_data"""
    text: str = ""
    answer: str = ""
    """Printed text, or a returned value as JSON: whatever the program wanted, and data only."""


def run(
    program: str,
    mode: Mode,
    cases: Sequence[Any],
    limits: Limits,
    level: Level,
    runtime: Runtime,
    stop_early: bool = False,
) -> list[Outcome]:
    """Run a program on its cases, each in a process of its own, all in one sandbox.

    Args:
        cases: texts for standard input (stdio), else what JSON can write.
        stop_early: at the first case that does not come to its end; those behind it have the same outcome.

    Returns:
        As many as there are cases.

    Raises:
        SandboxError: see there.
    """
    if level.weak:
        kernel.hide()  # this process, whose memory holds what is expected
    packed = [case.encode("utf-8", "replace") if mode == "stdio" else json.dumps(case).encode() for case in cases]
    told = levels.header(level, limits, runtime) | {"program": program, "mode": mode, "stop_early": stop_early}
    opening = json.dumps(told | {"cases": [len(case) for case in packed]}).encode()
    with contextlib.ExitStack() as stack:
        work, filtering, said = (stack.enter_context(tempfile.TemporaryFile(buffering=0)) for _ in range(3))
        for part in (len(opening).to_bytes(8, "big"), opening, *packed):
            _write(work.fileno(), part)
        _write(filtering.fileno(), seccomp.program())
        os.lseek(filtering.fileno(), 0, os.SEEK_SET)
        stay = Stay(runtime, limits, work.fileno(), filtering.fileno())
        guard = [sys.executable, "-I", "-S", "-c", BOOT.format(module="guard"), OUR_FOLDER, json.dumps(asdict(limits))]
        process = subprocess.Popen(
            [*guard, *level.command(stay)],
            stdin=subprocess.PIPE,  # never written: when it closes, the guard ends all that it keeps
            stdout=subprocess.PIPE,
            stderr=said,
            pass_fds=(work.fileno(), filtering.fileno()),
            env=stay.environment,
            cwd="/",
            start_new_session=True,
        )
        try:
            report = _read(process, limits.seconds + _SLACK_SECONDS)
        finally:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.terminate()
            status = process.wait()
            process.stdout.close()
        message = os.pread(said.fileno(), 2000, 0).decode("utf-8", "replace").strip()
    return _outcomes(report, status, message, len(cases), level)


def _write(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _read(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    """The report; it ends where the guard does."""
    assert process.stdout is not None
    ends, report = time.monotonic() + seconds, bytearray()
    while select.select([process.stdout], [], [], max(0.0, ends - time.monotonic()))[0]:
        part = os.read(process.stdout.fileno(), 2**16)
        if not part:
            process.wait(timeout=max(1.0, ends - time.monotonic()))
            return bytes(report)
        report += part
        if len(report) > _REPORT_BYTES:
            return bytes(report)
    raise SandboxError(f"the guard of a sandbox did not end within {seconds:g} seconds")


def _outcomes(report: bytes, status: int, message: str, cases: int, level: Level) -> list[Outcome]:
    lines = report.split(b"\n")[:-1]  # what has no end is not said
    told = [json.loads(line) for line in lines]
    if not told or told[0].get("kind") != "started":
        raise SandboxError(f"{level.name} does not start a sandbox (status {status}): {message or 'it says nothing'}")
    found = [Outcome(each["kind"], each["text"], each["answer"]) for each in told[1:]]
    why = REASONS.get(status)
    if why is None and status < 0 and len(report) <= _REPORT_BYTES and len(found) < cases:
        raise SandboxError(f"a sandbox of {level.name} was ended from outside, by signal {-status}: {message}")
    if why == "memory":  # the kernel picks a process, and others may wait for it
        found = [replace(each, kind="memory") if each.kind in ("killed", "timeout") else each for each in found]
    if len(found) < cases:
        if why is not None:
            last = Outcome(why, "the sandbox was over its limit")
        elif len(report) > _REPORT_BYTES:
            last = Outcome("output", f"more than {_REPORT_BYTES} bytes in all cases")
        elif found and found[-1].kind != "done":
            last = found[-1]
        else:
            last = Outcome("killed", f"the sandbox ended with status {status} before its program")
        found += [last] * (cases - len(found))
    return found
