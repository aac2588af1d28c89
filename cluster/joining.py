"""Joining a Ray cluster, or starting one here, and leaving it: every wait has an end, and what failed has a name."""

from __future__ import annotations

import atexit
import logging
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil
import ray
from ray._private import services
from ray._private import worker as ray_worker

from cluster.bounded import BoundedCall
from cluster.connecting import connecting, instead
from cluster.options import ClusterOptions
from cluster.signals import present
from cluster.sweeping import swept

CONNECT_SECONDS = 5.0
PROBE_SECONDS = 30.0
"""For a Ray head to answer, with the import of Ray."""
SHUTDOWN_SECONDS = 20.0
"""For Ray to end by itself; it takes about two."""
KILL_SECONDS = 5.0
_PROBE = """
import sys
from ray._raylet import GcsClient
GcsClient(address=sys.argv[1]).internal_kv_keys(b"", namespace=b"")
print("answers")
"""


class ClusterError(RuntimeError):
    """The cluster cannot run this job; the message says what is missing."""


@contextmanager
def joined(options: ClusterOptions) -> Iterator[None]:
    """A Ray cluster for the duration of the block: the given one, or one started here and stopped at the end."""
    if ray.is_initialized():
        yield
        return
    of_ours: AbstractContextManager[dict[str, str]] = swept() if options.address is None else nullcontext({})
    with of_ours as marks:
        try:
            _join(options.address, marks)
            yield
        finally:
            leave()


def _join(address: str | None, marks: Mapping[str, str] = MappingProxyType({})) -> None:
    """
    Args:
        marks: variables for the processes that are started here.
    """
    # Waiting threads sleep: spinning ones slow a job down twentyfold as soon as another program wants the core.
    # Modules of the current folder, such as a user's reward functions, can be imported everywhere.
    variables = {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": os.pathsep.join(_module_path())}
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    logging.getLogger("ray").setLevel(logging.ERROR)  # some of it speaks before it has read that
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # of calls that nobody waits for once a run has failed
    if address is None:
        # Inherited, not a runtime environment: the workers that Ray starts in advance would not have that and idle,
        # and the actors would wait for the agent that makes it. "local", because None would follow RAY_ADDRESS.
        try:
            with connecting(_again()), _environment({**variables, **marks, **_patience()}), _out_of_reach():
                ray.init(address="local", include_dashboard=False, **quiet)
        except Exception as error:  # of many classes, for sockets, folders, ports and limits of this machine
            raise ClusterError(
                f"Ray could not be started on this machine ({type(error).__name__}: {error}){_advice(str(error))}"
            ) from error
        return
    _take_token()
    if address != "auto":
        _probe(address)
    fix = f"See with `ray status` whether the cluster at cluster.address={address} is well, and give the command again"
    try:
        with connecting(fix):
            ray.init(address=address, runtime_env={"env_vars": variables}, **quiet)
    except ConnectionError as error:
        raise ClusterError(
            f"no Ray cluster answers at cluster.address={address}: start one with `ray start --head`, or use "
            f"cluster.address=null for one on this machine"
        ) from error


def _advice(text: str) -> str:
    """What may be done about a failed start."""
    if "AF_UNIX" in text:
        return ": the path of its folder is too long for sockets; set TMPDIR or RAY_TMPDIR to a short one, such as /tmp"
    if "/.ray" in text or "token" in text:
        return (
            ": it keeps a secret in ~/.ray; let HOME be a folder that can be written, or choose one of your own with "
            "RAY_AUTH_TOKEN"
        )
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit != resource.RLIM_INFINITY:
        return f": files may not grow beyond {limit // 1024} KiB here, its logs neither; raise that with `ulimit -f`"
    folder = ray_folder()
    return (
        f": make its folder ({folder}, chosen by RAY_TMPDIR or TMPDIR) one that can be written and has room, unset "
        f"variables RAY_... of this shell that are not meant, or see what its logs in {folder}/session_latest/logs say"
    )


def ray_folder() -> str:
    """Of the Ray that is started here."""
    return f"{os.environ.get('RAY_TMPDIR') or os.environ.get('TMPDIR') or '/tmp'}/ray"


def _again() -> str:
    return (
        f"Give the same command again; if that recurs, see what ended Ray's processes (a full memory, a kill) in "
        f"{ray_folder()}/session_latest/logs"
    )


def _patience() -> dict[str, str]:
    """Variables of Ray's. Its client would end a process, this one too, a minute after the control store has gone.
    That of a Ray of our own does not come back, and what waits for it has a deadline here and a name."""
    name = "RAY_gcs_rpc_server_reconnect_timeout_s"
    return {name: os.environ.get(name, str(10**6))}


def _take_token() -> None:
    """Authenticate as `ray start` does on this machine: with the token that is there, unless RAY_AUTH_MODE says
    otherwise. Ray itself does so only where no address is given."""
    with suppress(ImportError):  # it is not public, and another version may not have it
        from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def _probe(address: str) -> None:
    """Asks the head once. Ray would ask for minutes, and say the same whoever is at fault.

    Raises:
        ClusterError: the address is none, nobody listens, a stranger listens, or the head wants another token.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ClusterError(f"cluster.address={address}: write HOST:PORT, as `ray start --head` prints it, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except ConnectionRefusedError:
        raise ClusterError(
            f"cluster.address={address}: nothing listens there; start a cluster with `ray start --head`, or look for "
            f"its port (6379 unless it was given another)"
        ) from None
    except OSError as error:
        raise ClusterError(
            f"cluster.address={address} cannot be reached ({error}): check the host's name and what lies between"
        ) from None
    said = _asked(address)
    if "answers" in said:
        return
    if "AuthToken" in said or "nauthenticated" in said or "uthentication" in said:
        raise ClusterError(
            f"the Ray cluster at cluster.address={address} does not take {_token_in_use()}: give the token that it was "
            f"started with in RAY_AUTH_TOKEN, or in the file that RAY_AUTH_TOKEN_PATH names"
        )
    raise ClusterError(
        f"something listens at cluster.address={address}, but it does not answer as a Ray head within "
        f"{PROBE_SECONDS:g} s: give the port of `ray start --head` (not that of the dashboard or the client server), "
        f"and see that its processes are alive and of Ray {ray.__version__}"
    )


def _asked(address: str) -> str:
    """What a process says that asks the head, "" if it was still waiting."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, address], capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as late:
        return "".join(part.decode(errors="replace") for part in (late.stdout, late.stderr) if isinstance(part, bytes))
    return done.stdout + done.stderr


def _token_in_use() -> str:
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return "a job without a token"
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        if os.environ.get(name):
            return f"the token of {name}"
    return f"the token of {Path.home() / '.ray/auth_token'}"


def leave() -> None:
    """`ray.shutdown()` with an end: it waits for Ray's own processes, which may be frozen. Those that were started here
    are killed then; an interrupt kills them at once."""
    ours = [process for process in psutil.Process().children(recursive=True) if _is_ray(process)]
    ending = BoundedCall(ray.shutdown)
    try:
        ending.ends_within(present().patience(SHUTDOWN_SECONDS))
    finally:
        if not ending.over:
            for process in ours:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            if not ending.ends_within(KILL_SECONDS):  # it would wait again when the interpreter ends
                atexit.unregister(ray_worker.shutdown)


def _is_ray(process: psutil.Process) -> bool:
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return "/ray/" in command or command.startswith("ray::")


@contextmanager
def _out_of_reach() -> Iterator[None]:
    """Ray's processes get sessions of their own. A signal to the whole process group, which a closed terminal or
    `timeout` sends, would end them before this process could say what it has to, and it with them."""
    with instead(services, "ConsolePopen", lambda started: partial(started, start_new_session=True)):
        yield


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """For the processes that the block starts."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _module_path() -> list[str]:
    return [os.getcwd(), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]


def shadowed(package: Path) -> Path | None:
    """What the processes of a cluster would import instead of `package`: they look in the current folder and on
    PYTHONPATH first."""
    for folder in map(Path, _module_path()):
        for found in (folder / package.name, folder / f"{package.name}.py"):
            if found.resolve() == package.resolve():
                return None
            if (found / "__init__.py").is_file() or found.is_file():
                return found
    return None
