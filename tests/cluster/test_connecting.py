"""Ray's client in C++ ends the process that connects, or keeps it waiting with the interpreter's lock in hand: both are
told by name. What Ray itself does then is played here; with a real one in `test_joining`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ray._private import ray_constants, utils

from cluster import connecting, joining
from cluster.teller import told

ROOT = Path(__file__).parents[2]
BEGIN = """
import ctypes, os, sys
from ray._private import worker
from cluster import connecting
def connect():
    {body}
worker.connect = connect
connecting.CONNECT_SECONDS = 0.3
with connecting.connecting("Give it again."):
    print("mine", file=sys.stderr)
    worker.connect()
print("through", file=sys.stderr)
"""
GONE = (
    "[2026-11-30 22:39:38,825 E 7 8] rpc_client.h:204: Failed to connect to GCS within 60 seconds. GCS may be killed."
)
WARNING = "[2026-11-30 22:37:54,477 W 7 7] rpc_client.h:153: Failed to connect to GCS at address 1.2.3.4:5."


@pytest.mark.parametrize(
    ("lines", "ended", "shown"),
    [
        ("mine\n", False, "mine\n"),
        (f"mine\n{WARNING}\n{GONE}\nmine, too\n", False, "mine\nmine, too\n"),
        (f"mine\n{WARNING}\n", True, "mine\n"),
        (
            f"mine\n{WARNING}\n{GONE}\n*** StackTrace Information ***\n",
            True,
            "mine\nerror: Ray has ended this process while it connected: Failed to connect to GCS within 60 seconds. "
            "Give it again.\n",
        ),
        ("", True, ""),
    ],
)
def test_lines_of_rays_become_one_message_if_it_ended_the_process(lines: str, ended: bool, shown: str) -> None:
    assert told(lines, ended, "Give it again.") == shown


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        ("pass", 0, ("mine", "through")),
        (f"os.write(2, {GONE!r}.encode()); os._exit(1)", 1, ("mine", "error: Ray has ended this process")),
        ("ctypes.PyDLL(None).sleep(60)", 1, ("mine", "error: Ray has not let this process in within 0:00:00.3")),
    ],
)
def test_every_connection_ends_with_a_code_and_a_message(body: str, code: int, says: tuple[str, str]) -> None:
    """`PyDLL` keeps the interpreter's lock, as Ray does."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN.format(body=body)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    lines = done.stderr.splitlines()
    assert (done.returncode, len(lines)) == (code, 2), done.stderr
    assert all(line.startswith(said) for line, said in zip(lines, says, strict=True)), lines
    assert code == 0 or lines[1].endswith(". Give it again.")


def test_handlers_of_rays_do_not_come_in_and_everything_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = (signal.getsignal(signal.SIGTERM), utils.set_sigterm_handler)
    with connecting.connecting("Give it again."):
        assert ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER  # that of C++, which Ray asks when it connects
        utils.set_sigterm_handler(lambda number, frame: None)
        assert signal.getsignal(signal.SIGTERM) == before[0]
    assert (signal.getsignal(signal.SIGTERM), utils.set_sigterm_handler) == before
    assert not ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER


def test_ray_of_our_own_is_patient_with_its_control_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it ends this process by itself after a minute, whatever has a deadline here."""
    name, seen = "RAY_gcs_rpc_server_reconnect_timeout_s", []
    monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(joining.ray, "init", lambda **options: seen.append(os.environ.get(name)))
    joining._join(None)
    monkeypatch.setenv(name, "7")  # somebody means it
    joining._join(None)
    joining._join("auto")
    assert seen == ["1000000", "7", "7"]


def test_a_start_that_fails_under_a_limit_of_files_names_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**options: object) -> None:
        raise RuntimeError("the current node timed out")

    monkeypatch.setattr(joining.ray, "init", refused)
    with pytest.raises(joining.ClusterError, match=r"make its folder .* one that can be written"):
        joining._join(None)
    monkeypatch.setattr(joining.resource, "getrlimit", lambda which: (65536, 65536))
    with pytest.raises(joining.ClusterError, match=r"files may not grow beyond 64 KiB here.* raise that with `ulimit"):
        joining._join(None)
