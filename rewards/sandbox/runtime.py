"""Which files a Python needs, so that nothing else has to be visible in a sandbox."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

MODULES = "/modules"
"""Where modules beside the standard library lie in a sandbox."""
_SYSTEM = ("/lib", "/lib32", "/lib64", "/usr/lib64")
_SHARED = ("/lib/", "/lib64/", "/usr/lib/", "/usr/lib64/", "/usr/local/lib/")
_LOOK = """
import importlib, json, os, sys, sysconfig
for name in ("bz2", "ctypes", "decimal", "hashlib", "lzma", "sqlite3", "ssl", "unicodedata", "zlib", "zoneinfo"):
    try:
        importlib.import_module(name)
    except ImportError:
        pass
names, folders = json.loads(sys.argv[1]), json.loads(sys.argv[2])
before = set(sys.modules)
sys.path += folders
for name in names:
    importlib.import_module(name)
files = [getattr(sys.modules[name], "__file__", None) for name in set(sys.modules) - before]
with open("/proc/self/maps") as maps:
    mapped = {line.split(None, 5)[5].rstrip("\\n") for line in maps if len(line.split(None, 5)) == 6}
print(json.dumps({
    "executable": os.path.realpath(sys.executable),
    "folders": sorted({sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}),
    "files": [file for file in files if file],
    "mapped": sorted(path for path in mapped if ".so" in path),
}))
"""


class RuntimeMissing(Exception):
    """There is no such Python, or it lacks a module."""


@dataclass(frozen=True)
class Runtime:
    executable: str
    """Path of the interpreter, in the sandbox as outside."""
    shown: tuple[tuple[str, str], ...]
    """Path outside, path in the sandbox."""
    hidden: tuple[str, ...]
    """Folders in these that stay empty."""
    links: tuple[tuple[str, str], ...]
    """Target, path."""
    libraries: str
    """`LD_LIBRARY_PATH` of who looked, without which some interpreters do not start; empty is none."""


@functools.lru_cache(maxsize=16)
def find(python: str | None = None, modules: tuple[str, ...] = ()) -> Runtime:
    """The files of an interpreter, and of modules with all that they import.

    Args:
        python: its path; None is the one that runs this, without its environment's packages.
        modules: beside the standard library, importable here.

    Raises:
        RuntimeMissing: the interpreter cannot be run, or a module not imported.
    """
    python = python or getattr(sys, "_base_executable", None) or sys.executable
    folders = [folder for folder in sys.path if folder and os.path.isdir(folder)] if modules else []
    command = [python, "-I", "-S", "-B", "-c", _LOOK, json.dumps(modules), json.dumps(folders)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeMissing(f"{python} cannot be run: {error}") from error
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise RuntimeMissing(f"{python} does not run with the modules {list(modules)}: {last[0]}")
    found = json.loads(done.stdout)
    return _runtime(found, [os.path.realpath(folder) for folder in folders])


def _runtime(found: dict[str, list[str]], folders: list[str]) -> Runtime:
    executable, standard = str(found["executable"]), found["folders"]
    shown = {executable: executable} | {folder: folder for folder in standard}
    hidden = [f"{folder}/{name}" for folder in standard for name in ("site-packages", "dist-packages", "test")]
    for file in found["files"] + found["mapped"]:
        real = os.path.realpath(file)
        if any(_below(real, folder) and "site-packages" not in real for folder in standard):
            continue
        owner = max((folder for folder in folders if _below(real, folder)), key=len, default=None)
        if owner is not None:
            top = Path(real).relative_to(owner).parts[0]
            shown[f"{owner}/{top}"] = f"{MODULES}/{top}"
        elif real.startswith(_SHARED):
            shown[os.path.dirname(real)] = os.path.dirname(real)
        elif file in found["mapped"]:
            shown[file] = file
    links = []
    for path in _SYSTEM:
        if os.path.islink(path):
            links.append((os.readlink(path), path))
        elif os.path.isdir(path):
            shown[path] = path
    if os.path.exists("/etc/ld.so.cache"):
        shown["/etc/ld.so.cache"] = "/etc/ld.so.cache"
    return Runtime(
        executable,
        tuple(sorted(shown.items(), key=lambda pair: pair[1])),  # a folder before what lies in it
        tuple(folder for folder in hidden if os.path.isdir(folder)),
        tuple(links),
        os.environ.get("LD_LIBRARY_PATH", ""),
    )


def _below(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")
