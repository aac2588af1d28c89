"""Reward functions that do what reward functions do on a bad day, when a completion asks for it."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import struct
import subprocess
import sys
import time

from trl.rewards import get_soft_overlong_punishment

punish_length = get_soft_overlong_punishment(max_completion_len=4, soft_punish_cache=2)
NOT_CALLABLE = 3


class Unreadable(Exception):
    def __str__(self):
        raise KeyError("no text")


def length(completions, **kwargs):
    return [float(len(completion)) for completion in completions]


def one(completion):
    match completion:
        case "raise":
            raise KeyError("no such thing")
        case "exit":
            sys.exit(3)
        case "nan":
            return float("nan")
        case "inf":
            return float("inf")
        case "none":
            return None
        case "text":
            return "1.0"
        case "object":
            return object()
        case "hang":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(1000)
        case "hold the lock":
            return 9**9**9
        case "os._exit":
            os._exit(7)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "memory":
            return float(len(bytearray(64 * 2**30)))
        case "close":
            os.closerange(3, 1024)
            time.sleep(1000)
        case "write everywhere":
            for descriptor in range(3, 1024):  # of a parent with many open files
                with contextlib.suppress(OSError):
                    os.write(descriptor, b"\xff" * 64)
        case "fork":
            os.fork()
        case "answer again":
            reply = b'{"values": [99.0], "metrics": [], "seconds": 0.0}'
            for descriptor in range(3, 1024):
                with contextlib.suppress(OSError):
                    os.write(descriptor, struct.pack(">4sQQ", b"drl1", 1, len(reply)) + reply)
        case "garbage":
            for descriptor in range(3, 1024):
                with contextlib.suppress(OSError):
                    os.write(descriptor, struct.pack(">4sQQ", b"drl1", 2, 2**62))
        case "noise":
            print('{"values": [99.0]}' * 100)
            os.write(1, b"\x00\xff" * 100)
        case "read":
            sys.stdin.read()
        case "surrogate":
            raise ValueError("half of a pair \ud800, a red word \x1b[31m")
        case "unreadable":
            raise Unreadable
    return 1.0


def faulty(completions, **kwargs):
    return [one(completion) for completion in completions]


def length_and_fork(completions, **kwargs):
    """The length of each, and when one is "fork" two processes that return it."""
    if "fork" in completions:
        os.fork()
    return length(completions)


def process_id(completions, **kwargs):
    return [float(os.getpid())] * len(completions)


def leaves_a_process(completions, **kwargs):
    """Starts a process that shares standard output, writes its id into the file that the sample names, and hangs."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    with open(completions[0], "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
    time.sleep(1000)


def drops_one(completions, **kwargs):
    """One value too few for every sample that says so; right for a batch of one good sample."""
    return [1.0 for completion in completions if completion != "drop"]


def batch_size(completions, **kwargs):
    return [float(len(completions))] * len(completions)


def slow(completions, **kwargs):
    time.sleep(0.3 * len(completions))
    return [float(len(completions))] * len(completions)


def sees(prompts, completions, completion_ids, trainer_state, log_extra, log_metric, number, bonus=0.0, **kwargs):
    """Adds up what it was passed, so that a test can tell that each part arrived with its sample."""
    assert "completion" not in kwargs
    log_extra("note", ["-"] * len(prompts))
    log_metric("seen", float(len(prompts)))
    return [
        len(prompt) + 10 * len(completion) + 100 * len(ids) + 1000 * n + bonus + 100000 * trainer_state.global_step
        for prompt, completion, ids, n in zip(prompts, completions, completion_ids, number, strict=True)
    ]


def prints_without_end(completions, **kwargs):
    print("first \x1b[31m")
    for _ in range(64):
        print("x" * 1023)
    return length(completions)


async def asynchronous(completions, **kwargs):
    return [2.0 for _ in completions]


def speaks_of_another(completions, log_malformed, **kwargs):
    """One place behind the last sample, or before the first."""
    for completion in completions:
        log_malformed(len(completions) if completion == "behind" else -1, "task", "no such sample")
    return length(completions)


def without_kwargs(completions):
    return [1.0 for _ in completions]


def leaves_a_daemon(completions, **kwargs):
    """Starts a process in a session of its own, and writes its id into the file that the sample names."""
    daemon = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    with open(completions[0], "w") as file:
        file.write(str(daemon.pid))
    return [1.0]


def shares_memory(completions, **kwargs):
    """Half a GiB that no limit of a process's data counts."""
    held = mmap.mmap(-1, 1 << 29)
    held[::4096] = b"x" * (1 << 17)
    time.sleep(1000)
