"""Runs the attempts of one isolation in a process of its own, with secrets and doors around it, and prints as JSON what
came of each and what was harmed.

    python -m tests.rewards.sandbox.escapes LEVEL
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from rewards.sandbox import levels, runtime
from rewards.sandbox.limits import Limits
from rewards.sandbox.run import Outcome, run
from rewards.scoring.keeper import descendants
from tests.rewards.sandbox.attempts import ATTEMPTS, program
from tests.rewards.sandbox.exhausting import EXHAUSTING

LIMITS = Limits(seconds=6.0, case_seconds=6.0, cpu_seconds=5.0, output_kib=64, scratch_mib=8, file_mib=4)
NARROW = Limits(
    seconds=4.0,
    case_seconds=1.2,
    cpu_seconds=0.8,
    memory_mib=128,
    processes=12,
    file_mib=4,
    scratch_mib=8,
    output_kib=64,
)
_SHM = "/dev/shm"


class Host:
    """What there is to read, write, reach and harm."""

    def __init__(self) -> None:
        self.folder = Path(mkdtemp(prefix="watched-"))
        self.folder.chmod(0o777)
        self.secret = self.folder / "secret"
        self.secret.write_text("canary-of-a-file")
        self.secret.chmod(0o644)
        self.open = os.open(self.secret, os.O_RDONLY)
        os.set_inheritable(self.open, True)
        self.memory = "canary-of-the-memory"
        self.fifo = self.folder / "fifo"
        os.mkfifo(self.fifo)
        self.reader = os.open(self.fifo, os.O_RDONLY | os.O_NONBLOCK)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.file = socket.socket(socket.AF_UNIX)
        self.file.bind(str(self.folder / "socket"))
        self.abstract = socket.socket(socket.AF_UNIX)
        self.abstract.bind(f"\0canary{os.getpid()}")
        for each in (self.server, self.file, self.abstract):
            each.listen()
            each.setblocking(False)
        self.shm = Path(f"{_SHM}/canary-{os.getpid()}") if os.access(_SHM, os.W_OK) else self.folder / "shm"
        self.shm.write_text("canary-of-shared-memory")
        libc = ctypes.CDLL(None)
        self.segment_key = 0x5EC00000 + os.getpid() % 0xFFFF
        self.segment = libc.shmget(self.segment_key, 100, 0o1666)
        self.before = self.state()

    def named(self) -> dict[str, Any]:
        return {
            "secret": str(self.secret),
            "home": os.path.expanduser("~"),
            "checkout": str(Path(__file__).parents[3]),
            "watched": str(self.folder),
            "fifo": str(self.fifo),
            "socket": str(self.folder / "socket"),
            "abstract": f"canary{os.getpid()}",
            "port": self.server.getsockname()[1],
            "process": os.getpid(),
            "uid": os.getuid(),
            "plain": os.getuid() != 0,
            "shm": str(self.shm),
            "segment": self.segment_key,
        }

    def state(self) -> dict[str, Any]:
        """Everything that must stay as it is."""
        files = [self.secret, self.shm, Path(os.__file__), Path(sys.executable), Path(os.__file__).parent, Path("/dev")]
        seen: dict[str, Any] = {}
        for file in files:
            found = file.stat()
            seen[str(file)] = (found.st_size if file.is_file() else 0, found.st_mtime_ns, found.st_mode, found.st_nlink)
        names = {"watched": self.folder, "root": Path("/"), "home": Path.home()}
        for name, folder in names.items():
            seen[name] = sorted(os.listdir(folder)) if os.access(folder, os.R_OK) else []
        seen["name"] = os.uname().nodename
        seen["environment"] = dict(os.environ)
        for each in (self.server, self.file, self.abstract):
            with contextlib.suppress(BlockingIOError):
                each.accept()
                seen["reached"] = str(each)
        with contextlib.suppress(BlockingIOError):
            seen["fifo"] = os.read(self.reader, 10).decode()
        return seen

    def harmed(self) -> list[str]:
        now = self.state()
        return [name for name in sorted({*now, *self.before}) if now.get(name) != self.before.get(name)]

    def close(self) -> None:
        shutil.rmtree(self.folder)
        self.shm.unlink(missing_ok=True)
        ctypes.CDLL(None).shmctl(self.segment, 0, None)


def main(wanted: str) -> dict[str, Any]:
    (level,) = [level for level in levels.candidates(allow_weak=True) if wanted in level.name][-1:]
    found = runtime.find()
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # what survives a sandbox becomes a child of this process
    host = Host()

    def tried(name: str) -> dict[str, Any]:
        source = program(ATTEMPTS[name], host.named())
        return _seen(run(source, "stdio", ["standard input"], LIMITS, level, found)[0])

    try:
        with ThreadPoolExecutor(2) as pool:
            escapes = dict(zip(ATTEMPTS, pool.map(tried, ATTEMPTS), strict=True))
        exhausted = {}
        for name, (source, _) in EXHAUSTING.items():
            seen = _seen(run(source, "stdio", [""], NARROW, level, found)[0])
            exhausted[name] = seen | {"left": len(descendants(os.getpid()))}
        after = run("print(sum(map(int, input().split())))", "stdio", ["1 2 3"], LIMITS, level, found)
        return {
            "level": level.name,
            "uid": os.getuid(),
            "escapes": escapes,
            "exhausted": exhausted,
            "harmed": host.harmed(),
            "left": len(descendants(os.getpid())),
            "after": _seen(after[0]),
        }
    finally:
        host.close()


def _seen(outcome: Outcome) -> dict[str, Any]:
    return {"kind": outcome.kind, "text": outcome.text, "answer": outcome.answer[:3000]}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
