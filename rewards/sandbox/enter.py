"""Makes the root of a sandbox from within new namespaces, where there is no bubblewrap, and becomes its first process.

Started by unshare(1), as root of a mount namespace that nobody else sees. What is shown is bound read-only into an
empty file system of a megabyte, which becomes the root and is then read-only itself.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import sys
from typing import Any, NoReturn

from rewards.sandbox.inside import kernel

_RDONLY, _NOSUID, _NODEV, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
_DETACH = 2
_AT_RECURSIVE = 0x8000
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_MOUNT_SETATTR = 442
_DROP_BOUNDING = 24
_SETGID, _SETUID = 6, 7
_BASE = "/tmp"
DEVICES = ("null", "zero", "full", "random", "urandom")


class _Attributes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns"))


_libc = ctypes.CDLL(None, use_errno=True)


def main() -> NoReturn:
    """Argument: what to show, as JSON: `shown`, `hidden`, `links`, `scratch`, `scratch_bytes`, `filter`, `keep_uid`,
    `command`, `environment`."""
    plan = json.loads(sys.argv[1])
    _make_root(plan)
    for capability in range(64):
        if plan["keep_uid"] or capability not in (_SETGID, _SETUID):  # root's process needs two to become nobody
            try:
                kernel.prctl(_DROP_BOUNDING, capability)
            except OSError:  # the kernel knows no more of them
                break
    os.chdir(plan["scratch"])
    kernel.filter_calls(bytes.fromhex(plan["filter"]))
    os.execve(plan["command"][0], plan["command"], plan["environment"])


def _make_root(plan: dict[str, Any]) -> None:
    _mount(None, "/", None, _REC | _PRIVATE)
    _mount("tmpfs", _BASE, "tmpfs", _NOSUID | _NODEV, "size=1m,mode=0755")
    os.mkdir(f"{_BASE}/old")
    os.mkdir(f"{_BASE}/new")
    _pivot(_BASE, f"{_BASE}/old")
    os.chdir("/")
    _mount("tmpfs", "/new", "tmpfs", _NOSUID | _NODEV, "size=1m,mode=0755")
    for source, target in plan["shown"]:
        _show(f"/old{source}", f"/new{target}")
    for folder in plan["hidden"]:
        _mount("tmpfs", f"/new{folder}", "tmpfs", _NOSUID | _NODEV | _RDONLY, "size=4k,mode=0755")
    for target, path in plan["links"]:
        os.makedirs(os.path.dirname(f"/new{path}"), exist_ok=True)
        if not os.path.lexists(f"/new{path}"):
            os.symlink(target, f"/new{path}")
    os.mkdir("/new/dev")
    for name in DEVICES:
        open(f"/new/dev/{name}", "x").close()
        _mount(f"/old/dev/{name}", f"/new/dev/{name}", None, _BIND)
    os.makedirs(f"/new{plan['scratch']}", exist_ok=True)
    size = f"size={plan['scratch_bytes']},nr_inodes=4096,mode=1777"
    _mount("tmpfs", f"/new{plan['scratch']}", "tmpfs", _NOSUID | _NODEV, size)
    _mount(None, "/new", None, _REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV)
    _check(_libc.umount2(b"/old", _DETACH), "umount2 of the old root")
    os.chdir("/new")
    _pivot(".", ".")  # the old root lies over the new one, until it is detached
    _check(_libc.umount2(b".", _DETACH), "umount2 of what lay around")
    os.chdir("/")


def _show(source: str, target: str) -> None:
    """Bound with all that is mounted below it, read-only."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if not os.path.exists(target):
            open(target, "x").close()
    _mount(source, target, None, _BIND | _REC)
    attributes = _Attributes(set=_RDONLY | _NOSUID | _NODEV)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    done = _libc.syscall(
        ctypes.c_long(_MOUNT_SETATTR),
        ctypes.c_int(-100),
        target.encode(),
        ctypes.c_uint(_AT_RECURSIVE),
        ctypes.byref(attributes),
        size,
    )
    _check(done, f"mount_setattr of {target}")


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    given = [None if each is None else each.encode() for each in (source, target, kind)]
    options = None if data is None else data.encode()
    _check(_libc.mount(*given, ctypes.c_ulong(flags), options), f"mount of {source} on {target}")


def _pivot(new: str, old: str) -> None:
    number = ctypes.c_long(_PIVOT_ROOT[platform.machine()])
    _check(_libc.syscall(number, new.encode(), old.encode()), f"pivot_root to {new}")


def _check(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
