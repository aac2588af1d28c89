"""Connecting this process to Ray, whose client is C++. It ends a process that finds no Ray, with lines of its own and
without an exception, and while it waits it keeps the interpreter's lock, so that neither threads nor handlers of
signals run: a frozen Ray would be waited for without an end. Both are told by a process beside (`cluster.teller`).
"""

from __future__ import annotations

import faulthandler
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any

from ray._private import ray_constants
from ray._private import utils as ray_utils
from ray._private import worker as ray_worker

from cluster import teller
from cluster.signals import handlers_kept

START_SECONDS = 120.0
"""For `ray.init`; its own deadlines for each process that it starts are shorter."""
CONNECT_SECONDS = 30.0
"""For the connection, in which nothing else runs. It takes less than one; Ray gives a frozen raylet up after 25."""
TELLER_SECONDS = 5.0


@contextmanager
def connecting(fix: str) -> Iterator[None]:
    """For a block with `ray.init`: within its deadline the process is connected, an exception is raised, or the process
    ends with exit code 1 and a message. A signal meets the handlers that are there before.

    Args:
        fix: last sentence of that message.
    """
    with _lines_told(fix), handlers_kept(), _nothing_of_rays(), _ended_late():
        yield


@contextmanager
def _lines_told(fix: str) -> Iterator[None]:
    """Standard error goes through the teller: Ray writes to the file descriptor."""
    try:
        shown = os.dup(2)
    except OSError:  # there is none, and nobody to tell
        yield
        return
    source, sink = os.pipe()
    beside = subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(teller.__file__)), str(source), fix],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=[source],
        start_new_session=True,
    )
    os.close(source)
    os.dup2(sink, 2)
    os.close(sink)
    try:
        yield
    finally:
        with suppress(AttributeError, OSError, ValueError):
            sys.stderr.flush()
        os.dup2(shown, 2)
        os.close(shown)
        try:
            beside.communicate(b"done", TELLER_SECONDS)
        except subprocess.TimeoutExpired:
            beside.kill()
            beside.wait()


@contextmanager
def _nothing_of_rays() -> Iterator[None]:
    """No handlers of Ray's: that in Python ends the program in the middle of whatever it does, that in C++ writes a
    dump first and comes before ours. Python's own for crashes, which Ray switches on, stays."""
    with (
        instead(ray_constants, "RAY_DISABLE_FAILURE_SIGNAL_HANDLER", lambda _: True),
        instead(ray_utils, "set_sigterm_handler", lambda _: lambda handler: None),
    ):
        yield


@contextmanager
def _ended_late() -> Iterator[None]:
    """By a thread that needs no lock of the interpreter's."""

    def in_time(connect: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(connect)
        def connected(*arguments: Any, **options: Any) -> Any:
            faulthandler.dump_traceback_later(CONNECT_SECONDS, exit=True, file=2)
            try:
                return connect(*arguments, **options)
            finally:
                faulthandler.cancel_dump_traceback_later()

        return connected

    faulthandler.dump_traceback_later(START_SECONDS, exit=True, file=2)
    try:
        with instead(ray_worker, "connect", in_time):
            yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@contextmanager
def instead(module: Any, name: str, of: Callable[[Any], Any]) -> Iterator[None]:
    """What is not public may be absent in another version, and is then left alone."""
    there = getattr(module, name, None)
    if there is not None:
        setattr(module, name, of(there))
    try:
        yield
    finally:
        if there is not None:
            setattr(module, name, there)
