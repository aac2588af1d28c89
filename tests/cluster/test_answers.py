"""What Ray is asked is answered, raised, or given up by name; a signal need not wait for it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster import answers, placement
from cluster.joining import ClusterError
from cluster.options import ClusterOptions
from configs.schema import Config
from rl.driver import processes


@pytest.fixture
def store(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A child with the name of Ray's control store."""
    program = tmp_path / "gcs_server"
    program.symlink_to(str(shutil.which("sleep")))
    process = subprocess.Popen([program, "60"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """For calls that wait, until the test is over."""
    monkeypatch.setattr(answers, "POLL_SECONDS", 0.02)
    event = threading.Event()
    yield event
    event.set()


def test_an_answer_is_what_the_call_returns_or_raises() -> None:
    assert answers.answer(lambda: 7, 5, "count") == 7
    with pytest.raises(ZeroDivisionError):
        answers.answer(lambda: 1 / 0, 5, "count")
    with pytest.raises(TimeoutError, match="its own"):
        answers.answer(lambda: (_ for _ in ()).throw(TimeoutError("its own")), 5, "count")


def test_a_call_that_does_not_return_is_given_up_by_name(never: threading.Event) -> None:
    with pytest.raises(ClusterError, match=r"Ray did not count within 0 s: see with `ray status`.*raise cluster"):
        answers.answer(never.wait, 0.05, "count")


def test_dead_and_frozen_processes_are_named_and_the_dead_are_not_waited_for(
    store: subprocess.Popen[bytes], never: threading.Event
) -> None:
    assert answers.ailing() == {}
    store.send_signal(signal.SIGSTOP)
    reaches(store, psutil.STATUS_STOPPED)
    with pytest.raises(
        ClusterError, match=r"Ray's control store \(gcs_server\) is frozen. Give the same command again"
    ):
        answers.answer(never.wait, 0.05, "count")
    store.kill()
    reaches(store, psutil.STATUS_ZOMBIE)
    with pytest.raises(ClusterError, match=r"Ray's control store \(gcs_server\) is dead"):
        answers.answer(never.wait, 3600, "count")
    assert answers.answer(lambda: 7, 5, "count") == 7


def reaches(process: subprocess.Popen[bytes], status: str) -> None:
    deadline = time.monotonic() + 10
    while psutil.Process(process.pid).status() != status:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_signal_does_not_wait_for_ray(never: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "POLL_SECONDS", 60.0)
    threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGINT]).start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            answers.answer(never.wait, 60, "count")
    finally:
        signal.signal(signal.SIGINT, before)


class Group:
    """Of which it takes the order, and is silent then."""

    def __init__(self, never: threading.Event, silent: bool) -> None:
        self.never = never
        self.silent = silent

    def wait(self, seconds: float) -> bool:
        return not self.silent or self.never.wait()


@pytest.mark.parametrize(
    ("silent", "what"),
    [
        ("cluster_resources", "say what the cluster has"),
        ("placement_group", "take the order for room"),
        ("wait", "make room"),
        ("actors", "take the order for processes"),
    ],
)
def test_every_question_of_the_start_has_an_end(
    silent: str, what: str, never: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A control store that dies or freezes at any of them."""
    resources = never.wait if silent == "cluster_resources" else lambda: {"CPU": 8.0}
    monkeypatch.setattr(placement.ray, "cluster_resources", resources)
    group = Group(never, silent == "wait")
    monkeypatch.setattr(
        placement, "placement_group", lambda *_, **__: never.wait() if silent == "placement_group" else group
    )
    monkeypatch.setattr(placement, "remove_placement_group", lambda group: None)
    monkeypatch.setattr(placement, "ANSWER_SECONDS", 0.0)
    options = ClusterOptions(startup_timeout_seconds=0.1)
    monkeypatch.setattr(processes, "_created", lambda *arguments: never.wait())
    with (
        pytest.raises(ClusterError, match=f"Ray did not {what} within"),
        processes.started(Config(cluster=options), generating=True, learning=True),
    ):
        pass
