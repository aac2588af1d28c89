"""A program that is told to end does so, whatever it is doing, and says with its code what has ended it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster import signals

ROOT = Path(__file__).parents[2]
BEGIN = """
import os, signal, sys, time
from cluster import signals
signals.SAME_SECONDS, signals.REACTION_SECONDS = 0.2, 0.4
def main(arrived):
    {body}
with signals.watched() as arrived:
    try:
        main(arrived)
    except KeyboardInterrupt:
        print("out", flush=True)
    finally:
        print("cleaned up", flush=True)
        os._exit(signals.code_of(arrived.first or 0))
"""
READY = 'print("ready", flush=True)'
SLEEPS = f"{READY}; time.sleep(60)"
CLEANS_UP_FOR_LONG = f"""
    try:
        {SLEEPS}
    finally:
        time.sleep(60)
"""
IN_A_LIBRARY = f"""
    import hashlib
    arrived.last_resort = lambda: print("kept", flush=True)
    {READY}
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
"""
UNBROKEN = f"""
    with arrived.unbroken():
        {READY}
        time.sleep(0.5)
        print("whole")
    print("never")
"""


def program(body: str) -> subprocess.Popen[str]:
    """One that is ready for signals."""
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN.format(body=body)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def said(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = process.communicate(timeout=20)
    assert "Traceback" not in err
    return process.returncode, out + err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_one_interrupts_and_its_number_is_the_code(number: signal.Signals) -> None:
    process = program(SLEEPS)
    process.send_signal(number)
    process.send_signal(number)  # as a wrapper passes it on
    assert said(process) == (128 + number, "out\ncleaned up\n")


def test_the_second_one_ends_at_once() -> None:
    process = program(CLEANS_UP_FOR_LONG)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert said(process) == (143, "\nended at once by SIGTERM\n")
    assert time.monotonic() - began < 5


def test_a_library_that_does_not_listen_is_not_waited_for() -> None:
    """What is still to be done is done in another thread."""
    process = program(IN_A_LIBRARY)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert said(process) == (143, "kept\n\nended at once by SIGTERM\n")


def test_what_must_not_be_cut_is_done_first() -> None:
    process = program(UNBROKEN)
    process.send_signal(signal.SIGINT)
    assert said(process) == (130, "whole\nout\ncleaned up\n")


def test_a_handler_of_somebody_else_stays_and_ours_go() -> None:
    def theirs(number: int, frame: object) -> None: ...

    before = {number: signal.getsignal(number) for number in signals.ENDING}
    signal.signal(signal.SIGHUP, theirs)
    try:
        with signals.listening() as outer, signals.listening() as inner:
            assert outer is inner is signals.present()
            assert signal.getsignal(signal.SIGHUP) is theirs
            with signals.handlers_kept():
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
            assert signal.getsignal(signal.SIGTERM) == outer.handle
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(KeyboardInterrupt):
                outer.check()  # until somebody acts upon it
            assert outer.take()
            assert not outer.take()
            outer.check()
            assert (outer.first, outer.patience(60)) == (signal.SIGTERM, signals.CLEANUP_SECONDS)
    finally:
        signal.signal(signal.SIGHUP, before[signal.SIGHUP])
    assert {number: signal.getsignal(number) for number in signals.ENDING} == before
    assert signals.present().patience(60) == 60
