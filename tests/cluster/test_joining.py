"""Joining and leaving a real Ray: each thing that goes wrong has its own message, and everything ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
JOIN = """
import sys
import ray
from cluster import joining
from cluster.options import ClusterOptions
joining.PROBE_SECONDS = float(sys.argv[2])
try:
    with joining.joined(ClusterOptions(address=sys.argv[1] or None)):
        print("CPUs:", ray.cluster_resources()["CPU"])
except joining.ClusterError as error:
    print("refused:", error)
"""
FREEZE = """
import os, signal, sys, time
import psutil
from cluster import joining, placement
from cluster.options import ClusterOptions
joining.SHUTDOWN_SECONDS, placement.REMOVAL_SECONDS = 2.0, 2.0
with joining.joined(ClusterOptions()):
    with placement.reserved([{"CPU": 0.5}], ClusterOptions()):
        ours = psutil.Process().children(recursive=True)
        for process in ours:
            if process.cmdline() and process.cmdline()[0].endswith(sys.argv[1]):
                process.send_signal(signal.SIGSTOP)
                print("frozen", process.pid)
        began = time.monotonic()
print("seconds", time.monotonic() - began)
time.sleep(1)
print("left", [process.pid for process in ours if process.is_running() and process.status() != psutil.STATUS_ZOMBIE])
"""


def said_by(program: str, *arguments: object, seconds: float = 120, **environment: str) -> str:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=seconds)
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text("0123456789abcdef" * 2)
    return file


@pytest.fixture(scope="module")
def head(token: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`ray start --head` by someone who has a token, as everyone has whose machine once ran Ray."""
    port = free_port()
    command = [Path(sys.executable).parent / "ray", "start", "--head", f"--port={port}", "--num-cpus=3", "--block"]
    options = ["--include-dashboard=false", "--disable-usage-stats", "--node-ip-address=127.0.0.1"]
    options += [f"--ray-client-server-port={free_port()}", f"--dashboard-agent-listen-port={free_port()}"]
    environment = {**os.environ, "RAY_AUTH_TOKEN_PATH": str(token)}
    log = tmp_path_factory.mktemp("head") / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [*map(str, command), *options], env=environment, stdout=file, stderr=file, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 90
        while "Ray runtime started" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_an_address_where_nobody_listens_is_told_at_once() -> None:
    nobody = f"127.0.0.1:{free_port()}"
    assert f"refused: cluster.address={nobody}: nothing listens there" in said_by(JOIN, nobody, 30)
    assert "refused: cluster.address=here: write HOST:PORT" in said_by(JOIN, "here", 30)
    assert "refused: cluster.address=nowhere.invalid:1 cannot be reached" in said_by(JOIN, "nowhere.invalid:1", 30)


def test_a_stranger_is_told_from_a_head() -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        address = f"127.0.0.1:{stranger.getsockname()[1]}"
        assert f"refused: something listens at cluster.address={address}" in said_by(JOIN, address, 4)


@pytest.mark.slow
def test_a_cluster_is_joined_with_the_token_that_is_there_and_another_one_is_named(head: str, token: Path) -> None:
    assert "CPUs: 3.0" in said_by(JOIN, head, 30, RAY_AUTH_TOKEN_PATH=str(token))
    other = said_by(JOIN, head, 30, RAY_AUTH_TOKEN="f" * 32)
    assert "refused: the Ray cluster at" in other
    assert "does not take the token of RAY_AUTH_TOKEN" in other
    none = said_by(JOIN, head, 30, RAY_AUTH_MODE="disabled")
    assert "does not take a job without a token" in none


@pytest.mark.slow
@pytest.mark.parametrize("process", ["raylet", "gcs_server"])
def test_a_frozen_ray_is_left_within_the_deadline_and_nothing_of_it_stays(process: str) -> None:
    """Ray alone waits for ever. Nor does RAY_ADDRESS lead anywhere, where no address was given."""
    said = said_by(FREEZE, process, RAY_ADDRESS="127.0.0.1:1")
    assert "frozen" in said
    assert "seconds" in said
    assert "left []" in said


STRIKE = """
import os, signal, subprocess, sys
import psutil, ray
from ray._private import worker
from cluster import answers, connecting, joining, placement
from cluster.options import ClusterOptions
joining.SHUTDOWN_SECONDS, placement.REMOVAL_SECONDS = 2.0, 2.0
moment, struck, number, connecting.CONNECT_SECONDS = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
def strike():
    for process in psutil.Process().children(recursive=True):
        if process.name() == struck:
            process.send_signal(number)
connect, made = worker.connect, ray._raylet.CoreWorker
def connected(*arguments, **options):
    if moment == "connecting":
        strike()
    return connect(*arguments, **options)
def worked(*arguments):
    if moment == "within":
        strike()
    return made(*arguments)
worker.connect, ray._raylet.CoreWorker = connected, worked
try:
    with joining.joined(ClusterOptions()):
        if moment == "connected":
            strike()
        with placement.reserved([{"CPU": 0.5}], ClusterOptions(startup_timeout_seconds=4)):
            print("room")
except joining.ClusterError as error:
    print("error:", error, file=sys.stderr)
    sys.exit(1)
"""
SIGNALLED = """
import os, signal, subprocess, sys
import ray
from cluster import joining, signals
from cluster.options import ClusterOptions
made, number = ray._raylet.CoreWorker, int(sys.argv[2])
def signalled(*arguments):
    if sys.argv[1] == "within":
        subprocess.Popen(["sh", "-c", f"sleep 0.03; kill -{number} {os.getpid()}"])
    worker = made(*arguments)
    if sys.argv[1] == "behind":  # Ray's handlers are there now, if it has any
        os.kill(os.getpid(), number)
    return worker
ray._raylet.CoreWorker = signalled
with signals.watched() as arrived:
    try:
        with joining.joined(ClusterOptions()):
            import time
            time.sleep(10)
    except BaseException as error:
        print(type(error).__name__, flush=True)
    os._exit(signals.code_of(arrived.first or 0))
"""


def ends(program: str, *arguments: object) -> tuple[int, str]:
    """Exit code, and all that it says; nothing of its Ray lives ten seconds later."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JOINING_TEST": (mark := uuid.uuid4().hex)}
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    deadline = time.monotonic() + 10
    while left := [process.pid for process in psutil.process_iter() if mark in environment_of(process)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    return done.returncode, done.stdout + done.stderr


def environment_of(process: psutil.Process) -> str:
    try:
        return process.environ().get("JOINING_TEST", "") if process.status() != psutil.STATUS_ZOMBIE else ""
    except (psutil.Error, OSError):
        return ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "struck", "number", "patience", "says"),
    [
        ("connecting", "gcs_server", signal.SIGKILL, 4, "Ray has not let this process in within 0:00:04"),
        ("connecting", "gcs_server", signal.SIGSTOP, 4, "Ray has not let this process in within 0:00:04"),
        ("connecting", "raylet", signal.SIGKILL, 30, "Failed to get the system config from raylet"),
        ("within", "raylet", signal.SIGSTOP, 4, "Ray has not let this process in within 0:00:04"),
        ("connected", "gcs_server", signal.SIGKILL, 30, "Ray's control store (gcs_server) is dead"),
        ("connected", "gcs_server", signal.SIGSTOP, 30, "Ray's control store (gcs_server) is frozen"),
        ("connected", "raylet", signal.SIGSTOP, 30, "Ray's raylet is frozen"),
    ],
)
def test_a_ray_that_dies_or_freezes_while_it_is_joined_is_named(
    moment: str, struck: str, number: signal.Signals, patience: float, says: str
) -> None:
    """Ray alone ends this process after a minute, or waits for ever, and no signal ends that."""
    code, said = ends(STRIKE, moment, struck, int(number), patience)
    assert code == 1
    assert said.count("error: ") == 1
    assert says in said
    assert "ive the same command again" in said
    assert ".h:" not in said


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["within", "behind"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_ray_connects_interrupts_as_any_other(moment: str, number: signal.Signals) -> None:
    """Without a dump of Ray's, which has a handler in C++, and without its exit code."""
    assert ends(SIGNALLED, moment, int(number)) == (128 + number, "KeyboardInterrupt\n")
