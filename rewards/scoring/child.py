"""What runs in the scoring process: it resolves the reward functions once and then answers calls until it is killed.

Model output reaches parsers, symbolic algebra and whatever a user plugged in, and any of these may hang while holding
the interpreter lock, crash or eat all memory. Only another process can end that: `rewards.scoring.process` is its other
side.

Messages are framed bytes on a socket: pickle towards this process, JSON back, so that the parent never unpickles what a
process that handled model output has written. Standard output stays free for whatever the functions print.
"""

from __future__ import annotations

import fcntl
import json
import os
import pickle
import resource
import select
import signal
import socket
import struct
import sys
from io import BufferedRWPair

from rewards.options import RewardOptions
from rewards.printable import printable
from rewards.registry import GIVEN, RewardError, RewardFunction, resolve_term
from rewards.scoring.calling import answer

_HEADER = struct.Struct(">4sQQ")
_MARK = b"drl1"
"""In front of each message, so that what a function wrote into the connection is not taken for one."""


class BrokenConnection(Exception):
    """What came is not a message, or not the one that was due."""


def write_message(stream: BufferedRWPair, number: int, payload: bytes) -> None:
    """`number` is that of the request, in it and in its reply."""
    stream.write(_HEADER.pack(_MARK, number, len(payload)))
    stream.write(payload)
    stream.flush()


def read_message(stream: BufferedRWPair) -> tuple[int, bytes]:
    """The number of the request, and what it or its reply says.

    Raises:
        EOFError: the other side is gone. BrokenConnection: something else was written into the connection.
    """
    mark, number, length = _HEADER.unpack(_read_exactly(stream, _HEADER.size))
    if mark != _MARK:
        raise BrokenConnection("a reward function wrote into the connection")
    return number, _read_exactly(stream, length)


def _read_exactly(stream: BufferedRWPair, size: int) -> bytes:
    payload = stream.read(size)
    if len(payload) < size:
        raise EOFError("the other side closed the connection")
    return payload


def main() -> None:
    """Entry point; the socket's file descriptor is the last command-line argument, standard input is the lifeline."""
    _die_with_parent()
    descriptor = int(sys.argv[-1])
    os.set_inheritable(descriptor, False)
    stream = socket.socket(fileno=descriptor).makefile("rwb")
    options: RewardOptions
    number, first = read_message(stream)
    options, local = pickle.loads(first)
    _limit_memory(options.memory_gib)
    try:
        if local is not None:
            GIVEN.update(_received(local))
        functions = {name: resolve_term(name, term) for name, term in options.terms.items()}
        notes = [note for name, function in functions.items() if (note := _prepared(function, options, name))]
    except RewardError as error:
        write_message(stream, number, json.dumps({"error": printable(str(error))}).encode())
        return
    write_message(stream, number, json.dumps({"ready": True, "notes": notes}).encode())
    here = os.getpid()
    while True:
        try:
            number, message = read_message(stream)
        except EOFError:
            return
        reply = answer(message, functions, options.terms)
        if os.getpid() != here:  # a function forked and both of them came back: one request has one answer
            os._exit(1)
        write_message(stream, number, json.dumps(reply).encode())


def _prepared(function: RewardFunction, options: RewardOptions, name: str) -> str | None:
    """What a function with an attribute `prepare`, called once with the options and its term, says of itself."""
    prepare = getattr(function, "prepare", None)
    if prepare is None:
        return None
    try:
        return f"reward.terms.{name}: {printable(str(prepare(options, options.terms[name])))}"
    except RewardError as error:
        raise RewardError(f"reward.terms.{name}: {error}") from error


def _received(local: bytes) -> dict[str, RewardFunction]:
    try:
        return pickle.loads(local)
    except Exception as error:  # an import in it runs foreign code
        raise RewardError(
            f"a reward function of a notebook or script cannot be made here ({type(error).__name__}: {error}): put it "
            f"into a module, and give its dotted path"
        ) from error


def _die_with_parent() -> None:
    """Have the kernel kill this process group when the parent's end of standard input closes, however the parent ended.

    A thread that watches the pipe would wait for the interpreter lock, which a big-integer power holds for minutes.
    """
    if hasattr(fcntl, "F_SETSIG"):  # Linux; elsewhere a busy process ends when its call returns
        lifeline = os.dup(0)
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
        if select.select([lifeline], [], [], 0)[0]:  # it closed before, and nothing will be sent
            os._exit(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # a function that reads standard input gets its end, not a hang


def _limit_memory(gib: float | None) -> None:
    if gib is not None:
        limit, hard = int(gib * 2**30), resource.getrlimit(resource.RLIMIT_DATA)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
