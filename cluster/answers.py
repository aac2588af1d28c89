"""Asking Ray with an end: its client in C++ waits without one for a control store that is gone, and ignores signals."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

import psutil

from cluster.joining import ClusterError, ray_folder

T = TypeVar("T")
POLL_SECONDS = 1.0
OF_RAY = {"gcs_server": "Ray's control store (gcs_server)", "raylet": "Ray's raylet"}
STATES = {psutil.STATUS_ZOMBIE: "dead", psutil.STATUS_STOPPED: "frozen"}


def ailing() -> dict[str, str]:
    """Process of a Ray that was started here -> `dead` or `frozen`."""
    found = {}
    for process in psutil.Process().children():
        try:
            name, state = process.name(), process.status()
        except psutil.Error:
            continue
        if name in OF_RAY and state in STATES:
            found[OF_RAY[name]] = STATES[state]
    return found


def cause(otherwise: str) -> str:
    """Why Ray does not answer, and what to do, as sentences.

    Args:
        otherwise: if its processes are well, or not ours to look at.
    """
    found = " and ".join(f"{name} is {state}" for name, state in ailing().items())
    if not found:
        return otherwise
    return (
        f"{found}. Give the same command again; if that recurs, see what ends it (a full memory, a kill) in "
        f"{ray_folder()}/session_latest/logs"
    )


def answer(function: Callable[[], T], seconds: float, what: str) -> T:
    """The result of a call of Ray's, which goes on in a thread if nobody waits for it any more.

    Args:
        what: what it is to do, for the message.

    Raises:
        ClusterError: it has not answered in time, or nobody is there who could.
    """
    future: Future[T] = Future()

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, daemon=True, name=f"Ray: {what}").start()
    began = time.monotonic()
    while not wait([future], min(POLL_SECONDS, seconds)).done:
        dead = "dead" in ailing().values()
        if dead or time.monotonic() - began >= seconds:
            if wait([future], POLL_SECONDS if dead else 0).done:  # it had, or says itself what is wrong
                break
            raise ClusterError(
                f"Ray did not {what} within {time.monotonic() - began:.0f} s: "
                + cause(
                    "see with `ray status` whether it is well, or raise cluster.startup_timeout_seconds if this "
                    "machine is very busy"
                )
            )
    return future.result()
