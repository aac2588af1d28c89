"""One `denoiserl train` as its user starts it, watched from outside."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import psutil

from tests.rl.support.training import SMALL

ROOT = Path(__file__).parents[3]
MARK = "DENOISERL_FAULTS_RUN"
"""A variable that every process of a run inherits, whatever becomes of its parents."""
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
"""In front of a command that may then mount what it alone sees."""
UPDATES = 3
OPTIONS = [
    *SMALL,
    "reward.terms.answer.function=tests.benchmarks.faults.rewards.slow_share_of_ones",
    f"run.updates={UPDATES}",
    "run.checkpoint_every=1",
    "rollout.timeout_seconds=20",
    "reward.timeout_seconds=20",
    "cluster.step_timeout_seconds=30",
    "cluster.startup_timeout_seconds=120",
    "run.name=x",
]
DEADLINE = 300.0
"""Seconds until a run must have ended, whatever happens to it: every wait of these options, one after the other."""
AFTER_END = 10.0
"""Seconds after which nothing of an ended run may live."""
FOREIGN = re.compile(
    r"Traceback \(most recent call last\)|^\*\*\* SIG|^\[[-\d]+ [\d:,]+ [EFC] |Check failed|core dumped|Fatal Python",
    re.MULTILINE,
)
"""What no user should have to read: tracebacks, and dumps of C++."""


@dataclass
class Ended:
    code: int | None
    """None: it did not end within the deadline, and was killed."""
    output: str
    seconds: float
    leftovers: list[str] = field(default_factory=list)
    """What still lived `AFTER_END` seconds later, or lay in shared memory (looked at where `namespaces`)."""

    @property
    def foreign(self) -> str:
        """The first line that is somebody else's, or ""."""
        found = FOREIGN.search(self.output)
        return found[0] if found else ""

    @property
    def message(self) -> str:
        """What it said last."""
        return " ".join(self.output.rpartition("error: ")[2].split())[-500:]


class Run:
    """A driver that has been started."""

    def __init__(self, folder: Path, options: Sequence[str] = (), wrap: Sequence[str] = (), **environment: str) -> None:
        """
        Args:
            folder: `run.folder`.
            wrap: a command in front of ours, such as one that limits the size of files.
        """
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.memory = _own_memory()
        self.log = folder.parent / f"{self.mark}.log"
        variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", MARK: self.mark, **environment}
        command = [
            *_with_memory(self.memory),
            *wrap,
            sys.executable,
            "-m",
            "rl.cli",
            "train",
            *OPTIONS,
            f"run.folder={folder}",
            *options,
        ]
        self.began = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder.parent, env=variables, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def processes(self) -> list[psutil.Process]:
        """All that carry the mark, whoever their parent is."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def find(self, kind: str) -> list[psutil.Process]:
        """Those whose command line, or the name that Ray gave them, has the text."""
        found = []
        for process in self.processes():
            with suppress(psutil.Error):
                if kind in " ".join([process.name(), *process.cmdline()]):
                    found.append(process)
        return found

    def wait_until(self, condition: Callable[[], bool], seconds: float = 60.0) -> bool:
        """False if the run ended, or the time did, before it held."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends and self.process.poll() is None:
            if condition():
                return True
            time.sleep(0.05)
        return False

    def updates_done(self) -> int:
        path = self.folder / "x/metrics.jsonl"
        return path.read_text().count("\n") if path.exists() else 0

    def end(self, within: float | None = None) -> Ended:
        """Waits, and says what stayed behind. Ends what did not end.

        Args:
            within: seconds from now; None is the deadline of a whole run.
        """
        try:
            code: int | None = self.process.wait(within or max(1.0, self.began + DEADLINE - time.monotonic()))
        except subprocess.TimeoutExpired:
            code = None
            self.process.kill()
            self.process.wait()
        ended = time.monotonic()
        while (left := self.processes()) and time.monotonic() < ended + AFTER_END:
            time.sleep(0.2)
        leftovers = [_named(process) for process in left]
        for process in left:
            with suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        psutil.wait_procs(left, timeout=5)
        if self.memory is not None:
            leftovers += [f"/dev/shm/{name}" for name in sorted(os.listdir(self.memory))]
            shutil.rmtree(self.memory)
        return Ended(code, self.log.read_text(errors="replace"), ended - self.began, leftovers)


@cache
def namespaces() -> bool:
    """Whether this machine lets a run have a file system of its own."""
    tried = [*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    with suppress(OSError):
        return subprocess.run(tried, capture_output=True, timeout=10, check=False).returncode == 0
    return False


def _own_memory() -> Path | None:
    """A folder that the run sees as its shared memory: other programs of the machine leave segments there, too."""
    return Path(tempfile.mkdtemp(prefix="faults-", dir="/dev/shm")) if namespaces() else None


def _with_memory(folder: Path | None) -> list[str]:
    return [] if folder is None else [*NAMESPACE, "bash", "-c", f'mount --bind {folder} /dev/shm && exec "$@"', "-"]


def _named(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())[:120] or process.name()
    return str(process.pid)


def finished(folder: Path, options: Sequence[str] = (), **environment: str) -> Ended:
    """A run that nothing is done to."""
    return Run(folder, options, **environment).end()


def kept(folder: Path) -> Mapping[str, bytes]:
    """Everything that a run folder holds, but for what readers of it leave there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
