"""How a program ends that is told to: by Ctrl-C (SIGINT), `kill` or a scheduler (SIGTERM), a closed terminal (SIGHUP).

The first signal raises KeyboardInterrupt in the main thread, wherever that is, but behind blocks that must not be cut
(`unbroken`). A command (`watched`) is ended at once by the second one, and by the first if the main thread does not
react, for example because it is inside a library: a thread sees to that, which hears of signals whatever the main
thread does.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
REACTION_SECONDS = 3.0
"""For the main thread, from the first signal on."""
CLEANUP_SECONDS = 3.0
SAME_SECONDS = 0.5
"""A second signal so soon is the first one, which a wrapper has passed on."""
SHOW_CURSOR = "\x1b[?25h"
"""A live display hides it."""


class Signals:
    """What has arrived, and what was done about it."""

    def __init__(self) -> None:
        self.first: signal.Signals | None = None
        self.last_resort: Callable[[], None] | None = None
        """What is still to be done if the main thread does not react; called in another one."""
        self._watched = False
        self._since = 0.0
        self._reacted = False
        self._taken = False
        self._claim = threading.Lock()
        self._unbroken = 0

    def handle(self, number: int, frame: FrameType | None) -> None:
        again, self._reacted = self._reacted, True
        self.first = self.first or signal.Signals(number)
        if not again:
            self._since = time.monotonic()
            self.check()
        elif not self._watched and time.monotonic() - self._since > SAME_SECONDS:
            raise KeyboardInterrupt  # in what may not be cut, too

    def check(self) -> None:
        """Raises KeyboardInterrupt if a signal has arrived and nobody has acted upon it: what was raised may be lost,
        in a destructor for instance."""
        if self.first is not None and not self._taken and not self._unbroken:
            raise KeyboardInterrupt

    def take(self) -> bool:
        """The caller acts upon the signal; whether nobody else does."""
        self._taken = True
        return self._claim.acquire(blocking=False)

    def patience(self, seconds: float) -> float:
        """How long to wait for others in a clean-up: so long, or less once a signal wants the program to end."""
        return seconds if self.first is None else min(seconds, CLEANUP_SECONDS)

    @contextmanager
    def unbroken(self) -> Iterator[None]:
        """A signal is raised behind the block."""
        self._unbroken += 1
        try:
            yield
        finally:
            self._unbroken -= 1
        self.check()

    def watch(self, arrived: socket.socket) -> None:
        """Reads the numbers of signals as the interpreter writes them; ends when the other side is closed."""
        self._watched = True
        began: float | None = None
        deadline: float | None = None
        number = 0
        while True:
            wait = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            if select.select([arrived], [], [], wait)[0]:
                if not (numbers := arrived.recv(64)):
                    return
                if not (ours := [each for each in numbers if each in ENDING]):
                    continue
                number = ours[-1]
                if began is None:
                    self.first = self.first or signal.Signals(number)  # a library may have taken our handler's place
                    began = time.monotonic()
                    deadline = began + REACTION_SECONDS
                elif time.monotonic() - began > SAME_SECONDS:
                    _end_at_once(number)
            elif self._reacted:
                deadline = None
            elif self._unbroken or not self.take():
                deadline = time.monotonic() + SAME_SECONDS
            else:
                if self.last_resort is not None:
                    with contextlib.suppress(Exception):
                        self.last_resort()
                _end_at_once(number)


_present = Signals()
"""Those of the block that is `listening`; one that nobody fills outside of such blocks."""
_listens = False


def present() -> Signals:
    return _present


@contextmanager
def listening() -> Iterator[Signals]:
    """A signal in the block raises KeyboardInterrupt there, in the main thread; inside of another such block, or of a
    thread, nothing new. Signals for which somebody else has a handler are theirs."""
    global _present, _listens
    if _listens or threading.current_thread() is not threading.main_thread():
        yield _present
        return
    _present, _listens = Signals(), True
    ours = {n: h for n in ENDING if (h := signal.getsignal(n)) in (signal.SIG_DFL, signal.default_int_handler)}
    for number in ours:
        signal.signal(number, _present.handle)
    try:
        yield _present
    finally:
        _present, _listens = Signals(), False
        for number, handler in ours.items():
            signal.signal(number, handler)


@contextmanager
def watched() -> Iterator[Signals]:
    """`listening` for a command, which may be ended at once."""
    with listening() as signals:
        arrived, writing = socket.socketpair()
        writing.setblocking(False)
        before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        thread = threading.Thread(target=signals.watch, args=(arrived,), daemon=True, name="signals")
        thread.start()
        try:
            yield signals
        finally:
            signal.set_wakeup_fd(before)
            writing.close()
            thread.join()
            arrived.close()


@contextmanager
def handlers_kept() -> Iterator[None]:
    """For a block of a library that installs handlers of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: not Python's, and nothing can be said about it
                signal.signal(number, handler)


def code_of(number: int) -> int:
    """What a shell reports of a program that a signal has ended."""
    return 128 + number


def _end_at_once(number: int) -> NoReturn:
    shown = SHOW_CURSOR if sys.stdout is not None and sys.stdout.isatty() else ""
    with contextlib.suppress(OSError):
        os.write(2, f"{shown}\nended at once by {signal.Signals(number).name}\n".encode())
    os._exit(code_of(number))
