"""The faults. Each starts a run, does something to it at a random moment, and says how the run may end."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.benchmarks.faults.run import NAMESPACE, Ended, Run, namespaces

BY_SIGNAL = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
AFTER_SIGNAL = 45.0
"""Seconds in which a run has ended that was told to; frozen processes of Ray take eleven of a quiet machine."""
KILLABLE = ("ray::RolloutActor", "ray::RewardActor", "ray::LearnerActor", "rewards.scoring", "raylet", "gcs_server")
"""Parts of the command lines of a run's processes; those of Ray's own end the run."""


@dataclass
class Fault:
    what: str
    """In words, with whatever was drawn."""
    ended: Ended
    codes: tuple[int, ...]
    """Exit codes that are a good end; 0 only with the right weights."""
    folder: Path | None
    """The run's folder, if the same command must be able to go on in it."""


@dataclass(frozen=True)
class Bench:
    """What faults are made with."""

    root: Path
    model: Path
    finished: Path
    """Run folder of a run of two updates, to copy and damage."""

    def folder(self) -> Path:
        taken = len([*self.root.glob("run-*")])
        folder = self.root / f"run-{taken}" / "runs"
        folder.mkdir(parents=True)
        return folder

    def options(self, *options: str) -> list[str]:
        return [f"model.path={self.model}", *options]


Kind = Callable[[Bench, random.Random], Fault]


def _at_a_moment(run: Run, rng: random.Random) -> str:
    """Waits for one, and says which: while it starts, or within an update."""
    updates = rng.choice([None, 0, 1, 2])
    if updates is None:
        seconds = rng.uniform(0.0, 6.0)
        run.wait_until(lambda: False, seconds)
        return f"{seconds:.1f} s after its start"
    run.wait_until(lambda: bool(run.find("ray::LearnerActor")) and run.updates_done() >= updates)
    time.sleep(rng.uniform(0.0, 1.0))
    return f"after update {updates}"


def signalled(bench: Bench, rng: random.Random) -> Fault:
    number = rng.choice([*BY_SIGNAL])
    again = rng.random() < 0.3
    run = Run(folder := bench.folder(), bench.options())
    moment = _at_a_moment(run, rng)
    run.process.send_signal(number)
    if again:
        time.sleep(rng.uniform(0.1, 1.0))
        with suppress(ProcessLookupError):
            run.process.send_signal(number)
    what = f"{signal.Signals(number).name}{' twice' if again else ''} {moment}"
    ended = run.end(AFTER_SIGNAL)
    early = (-number,) if ended.seconds < 5 else ()  # before Python runs our first line
    return Fault(what, ended, (BY_SIGNAL[number], 0, *early), folder)


def driver_killed(bench: Bench, rng: random.Random) -> Fault:
    run = Run(folder := bench.folder(), bench.options())
    moment = _at_a_moment(run, rng)
    run.process.kill()
    return Fault(f"SIGKILL of the driver {moment}", run.end(), (-signal.SIGKILL, 0), folder)


def process_killed(bench: Bench, rng: random.Random) -> Fault:
    run, what = _struck(bench, rng, signal.SIGKILL)
    return Fault(what, run.end(), (0, 1), run.folder)


def process_frozen(bench: Bench, rng: random.Random) -> Fault:
    run, what = _struck(bench, rng, signal.SIGSTOP)
    return Fault(what, run.end(), (0, 1), run.folder)


def frozen_and_interrupted(bench: Bench, rng: random.Random) -> Fault:
    """Ctrl-C of somebody whose run has stopped."""
    run, what = _struck(bench, rng, signal.SIGSTOP)
    time.sleep(rng.uniform(0.5, 3.0))
    run.process.send_signal(signal.SIGINT)
    return Fault(f"{what}, then SIGINT", run.end(AFTER_SIGNAL), (0, 1, 130), run.folder)


def _struck(bench: Bench, rng: random.Random, number: signal.Signals) -> tuple[Run, str]:
    """A run, one process of which has got a signal at a random moment; and that in words."""
    kind = rng.choice(KILLABLE)
    run = Run(bench.folder(), bench.options())
    moment = _at_a_moment(run, rng)
    hit = _one(run, kind, rng)
    if hit is not None:
        with suppress(psutil.Error):
            hit.send_signal(number)
    return run, f"{number.name} of {kind if hit else 'nothing'} {moment}"


def _one(run: Run, kind: str, rng: random.Random) -> psutil.Process | None:
    run.wait_until(lambda: bool(run.find(kind)), 10.0)
    found = run.find(kind)
    return rng.choice(found) if found else None


def file_limit(bench: Bench, rng: random.Random) -> Fault:
    """As a quota: a write beyond the limit fails in the middle."""
    kib = rng.choice([1, 4, 16, 64, 256, 1024])
    wrap = ["bash", "-c", f'trap "" XFSZ; ulimit -f {kib}; exec "$@"', "-"]
    run = Run(folder := bench.folder(), bench.options(), wrap, TMPDIR=str(bench.root))
    return Fault(f"files end at {kib} KiB", run.end(), (0, 1, 2), folder)


def disk_full(bench: Bench, rng: random.Random) -> Fault:
    """A file system of its own, in a namespace of the run's own; it is gone when the run is."""
    kib = rng.choice([64, 256, 1024, 2048, 4096])
    folder = bench.folder()
    mount = f'mount -t tmpfs -o size={kib}k tmpfs {folder} && exec "$@"'
    wrap = [*NAMESPACE, "bash", "-c", mount, "-"]
    return Fault(f"the disk of the run folder has {kib} KiB", Run(folder, bench.options(), wrap).end(), (0, 1, 2), None)


def read_only(bench: Bench, rng: random.Random) -> Fault:
    """The run folder's file system is mounted again, read-only, while the run is under way."""
    folder = bench.folder()
    after = rng.uniform(3.0, 14.0)
    mount = (
        f"mount -t tmpfs tmpfs {folder} || exit 99; "
        f'(sleep {after:.1f}; mount -o remount,ro {folder} 2>/dev/null) & exec "$@"'
    )
    wrap = [*NAMESPACE, "bash", "-c", mount, "-"]
    what = f"the run folder is read-only after {after:.1f} s"
    return Fault(what, Run(folder, bench.options(), wrap).end(), (0, 1, 2), None)


VARIABLES = [
    {"TMPDIR": "/nonexistent"},
    {"RAY_TMPDIR": "/proc/nonexistent"},
    {"HOME": "/proc"},
    {"RAY_ADDRESS": "10.255.255.1:6379"},
    {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/nonexistent"},
    {"CUDA_VISIBLE_DEVICES": "7"},
    {"OMP_NUM_THREADS": "many"},
    {"MASTER_ADDR": "10.1.1.1", "MASTER_PORT": "1", "RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "3"},
    {"GLOO_SOCKET_IFNAME": "none0"},
    {"http_proxy": "http://10.255.255.1:1", "https_proxy": "http://10.255.255.1:1"},
    {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
    {"COLUMNS": "0", "TERM": "dumb"},
    {"CI": "true", "COLUMNS": "20"},
    {"PYTHONWARNINGS": "error"},
    {"PYTHONOPTIMIZE": "1"},
    {"PYTHONSAFEPATH": "1"},
    {"XDG_CACHE_HOME": "/proc", "MPLCONFIGDIR": "/proc"},
]


def variables(bench: Bench, rng: random.Random) -> Fault:
    chosen = rng.choice(VARIABLES)
    run = Run(folder := bench.folder(), bench.options(), **chosen)
    return Fault(f"the shell has {chosen}", run.end(), (0, 1, 2), folder)


def long_folder_of_temporary_files(bench: Bench, rng: random.Random) -> Fault:
    folder = bench.folder()
    long = folder.parent / ("x" * rng.choice([60, 90, 120]))
    long.mkdir()
    run = Run(folder, bench.options(), TMPDIR=str(long))
    return Fault(f"TMPDIR has {len(str(long))} characters", run.end(), (0, 1, 2), folder)


def damaged_file(bench: Bench, rng: random.Random) -> Fault:
    """One file of a run of two updates, which is then to go on to three."""
    folder = bench.folder()
    shutil.copytree(bench.finished, folder, dirs_exist_ok=True)
    files = [path for path in sorted((folder / "x").rglob("*")) if path.is_file() and path.stat().st_size]
    path = rng.choice(files)
    content = path.read_bytes()
    how = rng.choice(["is gone", "is empty", "is cut", "has another byte", "is noise"])
    at = rng.randrange(len(content))
    if how == "is gone":
        path.unlink()
    else:
        path.write_bytes(
            {
                "is empty": b"",
                "is cut": content[:at],
                "has another byte": content[:at] + bytes([content[at] ^ 0x40]) + content[at + 1 :],
                "is noise": rng.randbytes(len(content)),
            }[how]
        )
    ended = Run(folder, bench.options()).end()
    return Fault(f"{path.relative_to(folder / 'x')} {how}", ended, (0, 1, 2), None if ended.code else folder)


FIELDS: dict[str, tuple[Kind, ...]] = {
    "signals": (signalled, signalled, driver_killed),
    "killed": (process_killed,),
    "frozen": (process_frozen, frozen_and_interrupted),
    "disk": (file_limit, disk_full, read_only),
    "environment": (variables, variables, long_folder_of_temporary_files),
    "files": (damaged_file,),
}


def kinds_of(field: str) -> tuple[Kind, ...]:
    """Without what this machine does not allow."""
    kinds = FIELDS[field]
    return kinds if field != "disk" or namespaces() else (file_limit,)
