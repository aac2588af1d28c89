"""The parent's side of the scoring process: start it, call it under a deadline, kill it, start it again."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from io import BufferedRWPair
from pathlib import Path
from typing import Any

from rewards.options import RewardOptions
from rewards.registry import RewardError, by_value, local_functions
from rewards.scoring import keeper
from rewards.scoring.child import BrokenConnection, read_message, write_message
from rewards.scoring.printed import Printed

_FLAGS = ("-u", "-X", "faulthandler")
"""What functions print is seen even when the process is killed; a crash in native code shows where it was."""
_BOOTSTRAP = """
import json, sys
path = json.loads(sys.argv[1])
sys.path[:] = [sys.argv[2], *path]
import rewards  # from there: a file of the user's may be called the same
sys.path[:] = path
from rewards.scoring.child import main
main()
"""
"""Not `python -m`: that would put the working directory, or this folder, in front of the parent's import path."""
_KEEPER = ("-I", "-S", keeper.__file__)
_OUR_FOLDER = str(Path(__file__).parents[2])


logger = logging.getLogger(__name__)


class ProcessLost(Exception):
    """The scoring process ended, or was ended, before it answered."""


class DeadlinePassed(ProcessLost):
    pass


class Crashed(ProcessLost):
    pass


class FunctionRaised(Exception):
    """The reward function raised; the scoring process is fine."""


class ServiceDown(Exception):
    """The reward function raised `Unavailable`."""


class ScoringProcess:
    """One child process that holds the imported reward functions.

    A plain subprocess, not multiprocessing: it needs no importable `__main__`, works inside Ray actors and in any
    thread, and inherits no lock. Not thread-safe: one call at a time.
    """

    def __init__(self, options: RewardOptions, printed: Path | None = None) -> None:
        """
        Args:
            printed: file for what functions print; None leaves that where this process prints.
        """
        self._options = options
        self._printed = None if printed is None else Printed(printed)
        self.startup_seconds = 0.0
        """What the last start took."""
        self._local: bytes | None = None
        """Functions that the child cannot find by itself."""
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._stream: BufferedRWPair | None = None
        self._noted: set[str] = set()
        self._requests = 0
        """Sent so far, to any process. A reply carries the number of its request."""

    def start(self) -> None:
        """Start the process and import every reward function; does nothing when it is already running.

        Raises:
            RewardError: a function cannot be resolved, or the imports did not end in time or killed the process.
        """
        if self.running:
            return
        started = time.monotonic()
        try:
            self._start()
        except Crashed as error:  # killed, for memory that others held too, or by mistake
            logger.warning("the scoring process ended while importing the reward functions (%s); once more", error)
            try:
                self._start()
            except Crashed as again:
                raise RewardError(
                    f"the scoring process ended twice while importing the reward functions: {again}{self._said()}"
                ) from None
        self.startup_seconds = time.monotonic() - started

    @property
    def running(self) -> bool:
        return self._process is not None

    def _start(self) -> None:
        """Raises RewardError, or Crashed."""
        local = local_functions(term.function for term in self._options.terms.values())
        self._local = by_value(local) if local else None
        self._socket, theirs = socket.socketpair()
        self._stream = self._socket.makefile("rwb")
        memory = self._options.memory_gib
        kept = [sys.executable, *_KEEPER, "-" if memory is None else str(memory)]
        scoring = [sys.executable, *_FLAGS, "-c", _BOOTSTRAP, json.dumps(sys.path), _OUR_FOLDER]
        with theirs, self._output() as output:
            self._process = subprocess.Popen(
                [*kept, *scoring, str(theirs.fileno())],
                stdin=subprocess.PIPE,  # never written: when it closes, however, the keeper ends all that it keeps
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # what a terminal sends to this process's group is not for it
            )
        limit = self._options.startup_timeout_seconds
        try:
            reply = self._exchange(pickle.dumps((self._options, self._local)), limit)
        except DeadlinePassed:
            names = ", ".join(term.function for term in self._options.terms.values())
            raise RewardError(
                f"importing the reward functions ({names}) took longer than reward.startup_timeout_seconds = "
                f"{limit:g}{self._said()}"
            ) from None
        if "error" in reply:
            self.stop()
            raise RewardError(reply["error"])
        for note in reply.get("notes", ()):
            if note not in self._noted:  # once, however often the process is started
                self._noted.add(note)
                logger.info("%s", note)

    @contextlib.contextmanager
    def _output(self) -> Iterator[int | None]:
        """Where the process prints; None is where this one does."""
        if self._printed is None:
            yield None
            return
        writing = self._printed.open()
        try:
            yield writing
        finally:
            os.close(writing)

    def _said(self) -> str:
        """Where to read what functions printed."""
        if self._printed is None or not self._printed.path.exists():
            return ""
        return f"; what it printed is in {self._printed.path}"

    def call(self, term: str, arguments: dict[str, Any], seconds: float) -> dict[str, Any]:
        """One call of one term's function; starts the process again if the last call lost it.

        Returns:
            `values`, a float or None each, as many as the function returned; `metrics`, (name, value) pairs;
            `malformed` and `failed` samples, as the function told of them; `seconds` that it took.

        Raises:
            DeadlinePassed, Crashed: the process is gone. FunctionRaised, ServiceDown: it is not.
        """
        payload = pickle.dumps((term, arguments))
        self.start()
        reply = self._exchange(payload, seconds)
        if "exception" in reply:
            raise (ServiceDown if reply.get("unavailable") else FunctionRaised)(reply["exception"])
        return reply

    def _exchange(self, payload: bytes, seconds: float) -> dict[str, Any]:
        """Send and receive. When the deadline passes the timer kills the process, which ends both waits."""
        assert self._stream is not None
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            self._kill()

        timer = threading.Timer(seconds, expire)
        timer.daemon = True
        timer.start()
        self._requests += 1
        reply, broken = None, ""
        try:
            write_message(self._stream, self._requests, payload)
            number, answer = read_message(self._stream)
            if number != self._requests:
                raise BrokenConnection(
                    f"reply {number} came where {self._requests} was due: a reward function left a process behind that "
                    f"answers, too; end what it forks with os._exit"
                )
            reply = json.loads(answer)
        except BrokenConnection as error:
            broken = f"was stopped: {error}"
        except (EOFError, OSError, ValueError, OverflowError, MemoryError):  # it is gone, or its message is no JSON
            pass
        finally:
            timer.cancel()
            timer.join()
        if expired.is_set():
            self.stop()
            raise DeadlinePassed(f"no answer within {seconds:.3g} s")
        if not isinstance(reply, dict):
            ended = _how_it_ended(self.stop())
            raise Crashed(f"the scoring process {broken or ended}{self._said()}")
        return reply

    def _kill(self) -> None:
        assert self._process is not None
        assert self._socket is not None
        self._process.terminate()
        with contextlib.suppress(OSError):  # wakes our own reads and writes even if a stray process holds the other end
            self._socket.shutdown(socket.SHUT_RDWR)

    def stop(self) -> int | None:
        """Kill the process and everything it started; returns its exit status, negative for a signal."""
        if self._process is None:
            return None
        assert self._stream is not None
        assert self._socket is not None
        self._kill()  # does not change the status of one that has ended by itself
        status = self._process.wait(timeout=30)
        with contextlib.suppress(OSError):  # flushes what could not be sent
            self._stream.close()
        self._socket.close()
        if self._process.stdin:
            self._process.stdin.close()
        self._process = self._socket = self._stream = None
        if self._printed is not None:
            self._printed.settle(seconds=1.0)
        return status


def _how_it_ended(status: int | None) -> str:
    if status == keeper.OVER_MEMORY:
        return "was stopped: it and what it started held more than reward.memory_gib"
    if status is not None and status < 0:
        name = signal.Signals(-status).name
        return f"was killed by {name} (out of memory, a crash in native code, or a broken connection)"
    return f"exited with status {status}"
