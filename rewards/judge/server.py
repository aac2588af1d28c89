"""A vLLM server: started, asked whether it is well, started again when it is not, and ended with all it started.

It runs under an interpreter of its own, since vLLM wants other versions of torch and transformers than the rest. What
holds it is `rewards.scoring.keeper`, which ends all of its processes when this one ends, however that was.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from rewards.judge.terms import JudgeError
from rewards.options import JudgeOptions
from rewards.scoring import keeper
from rewards.scoring.printed import Printed

POLL_SECONDS = 0.5
HEALTH_SECONDS = 5.0
FAILED_STARTS = 3
"""Starts in a row that may fail; then it is given up."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
"""Seconds before it is started again."""
END_SECONDS = 15.0
SECRETS = ("OPENAI_API_KEY", "HF_TOKEN", "RAY_AUTH_TOKEN", "WANDB_API_KEY")
"""What of the environment is nothing to a server."""
OF_ANOTHER_PYTHON = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")


@dataclass(frozen=True)
class Served:
    """What there is to know about it at a moment."""

    url: str | None
    """None while it is not there."""
    model: str
    key: str
    starts: int = 0
    ended: str = ""
    """How it ended the last time."""
    gave_up: str = ""
    """Why it is not started any more."""


class Server:
    def __init__(self, options: JudgeOptions, model: str, host: str, log: Path | None) -> None:
        """
        Args:
            model: the name under which it answers.
            host: address that it binds and that others reach it at.
            log: file for what it prints; None leaves that where this process prints.
        """
        self._options, self._model, self._host = options, model, host
        self._printed = None if log is None else Printed(log)
        self._key = secrets.token_urlsafe(24)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._url: str | None = None
        self._starts = 0
        self._ended = deque([""], maxlen=1)
        self._gave_up = ""
        self._thread = threading.Thread(target=self._supervise, daemon=True, name="judge")

    def start(self) -> None:
        """Returns at once; from now on it is supervised."""
        self._thread.start()

    def wait(self) -> None:
        """Until it answers. Raises JudgeError: it does not start."""
        while not self._ready.wait(POLL_SECONDS):
            if self._gave_up:
                raise JudgeError(self._gave_up)
            if self._stopping.is_set():
                raise JudgeError("the judge was stopped while it started")

    def served(self) -> Served:
        return Served(self._url, self._model, self._key, self._starts, self._ended[0], self._gave_up)

    def stop(self) -> None:
        """End it and all that it started."""
        self._stopping.set()
        self._end()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(END_SECONDS)

    def _supervise(self) -> None:
        failed = 0
        if shutil.which(self._options.python) is None:
            self._gave_up = f"judge.python={self._options.python} is no program that can be run here"
            return
        while not self._stopping.is_set():
            port = _free_port(self._host)
            self._launch(port)
            url = f"http://{_in_url(self._host)}:{port}"
            why = self._until_healthy(url)
            if not why:
                failed = 0
                self._url = f"{url}/v1"
                self._ready.set()
                why = self._until_ill(url)
                self._url = None
                self._ready.clear()
            else:
                failed += 1
            self._end()
            self._ended.append(why)
            if failed == FAILED_STARTS:
                self._gave_up = f"the judge {self._options.model} did not start {failed} times: {why}{self._said()}"
                return
            self._stopping.wait(min(LONGEST_WAIT, FIRST_WAIT * 2**failed) if failed else 0)

    def _launch(self, port: int) -> None:
        options = self._options
        # Absolute, since it runs in another folder; not resolved, since the interpreter of an environment is a link.
        python = Path(str(shutil.which(options.python))).absolute()
        model = str(Path(options.model).absolute()) if Path(options.model).is_dir() else options.model
        command = [
            *(str(python), "-m", "vllm.entrypoints.openai.api_server"),  # `vllm serve` wants a package of its own name
            *("--model", model, "--served-model-name", self._model),
            *("--host", self._host, "--port", str(port)),
            "--disable-uvicorn-access-log",
            *(str(argument) for argument in options.args),
        ]
        threads = {} if options.threads is None else {"OMP_NUM_THREADS": str(options.threads)}
        with self._lock, _output(self._printed) as output:
            if self._stopping.is_set():
                return
            self._starts += 1
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", keeper.__file__, "-", *command],
                stdin=subprocess.PIPE,  # never written: when it closes, however, the keeper ends all that it keeps
                stdout=output,
                stderr=output,
                cwd=tempfile.gettempdir(),  # not where modules of a user lie
                env=_environment(options.environment | threads | {"VLLM_API_KEY": self._key}),
                start_new_session=True,
            )

    def _until_healthy(self, url: str) -> str:
        """ "" once it answers; else why it does not."""
        ends = time.monotonic() + self._options.startup_seconds
        while time.monotonic() < ends and not self._stopping.is_set():
            if ended := self._how_it_ended():
                return ended
            if _is_healthy(url):
                return ""
            self._stopping.wait(POLL_SECONDS)
        return f"it did not answer within judge.startup_seconds={self._options.startup_seconds:g}"

    def _until_ill(self, url: str) -> str:
        """Why it is to be started again, or "" when it is to stop."""
        well = time.monotonic()
        while not self._stopping.wait(POLL_SECONDS):
            if ended := self._how_it_ended():
                return ended
            if _is_healthy(url):
                well = time.monotonic()
            elif time.monotonic() - well > self._options.unhealthy_seconds:
                return f"it did not answer for judge.unhealthy_seconds={self._options.unhealthy_seconds:g}"
        return ""

    def _how_it_ended(self) -> str:
        if self._process is None or (status := self._process.poll()) is None:
            return ""
        return f"it was killed by signal {-status}" if status < 0 else f"it exited with status {status}"

    def _end(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()  # the keeper ends all of them
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._printed is not None:
            self._printed.settle(seconds=1.0)

    def _said(self) -> str:
        if self._printed is None or not self._printed.path.exists():
            return ""
        lines = self._printed.path.read_text(errors="replace").strip().splitlines()
        errors = [line for line in lines if "Error" in line] or lines
        return (
            f"; the last it said: {errors[-1].strip()[:300] if errors else 'nothing'} (all of it: {self._printed.path})"
        )


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    """This process's, without what belongs to another interpreter or is a secret."""
    kept = {name: value for name, value in os.environ.items() if name not in (*SECRETS, *OF_ANOTHER_PYTHON)}
    return {
        **kept,
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        **{name: str(value) for name, value in own.items()},
    }


def _free_port(host: str) -> int:
    """One that is free now; where another takes it first, the server ends and is started with the next."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=HEALTH_SECONDS, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@contextlib.contextmanager
def _output(printed: Printed | None):  # type: ignore[no-untyped-def]
    if printed is None:
        yield None
        return
    writing = printed.open()
    try:
        yield writing
    finally:
        os.close(writing)
