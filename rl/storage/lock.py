"""One process at a time writes to a run folder."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from configs.errors import UserError
from rl.storage.disk import lives_elsewhere

NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""Answers of file systems that have no hard links: FAT, some network and FUSE mounts."""
BEING_WRITTEN = 1.0
"""Seconds: between the creation of a lock there and its write."""
LEFT_BEHIND = 60.0
"""Seconds: what takes a moment is not under way any more."""
SAME_START = 3.0
"""Seconds: a process's start is counted from the machine's, which a corrected clock moves a little."""


class FolderLock:
    """A file `.NAME.lock` beside the folder that says who writes there: host, process and when that started.

    Beside it, because a run that starts anew renames the folder. A process that was killed leaves its file behind; on
    the same host that is seen (the process is gone, or its number belongs to one that started at another time) and the
    file is taken over. Of another host's processes nobody here can tell: a person decides.
    """

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            UserError: another process holds the folder. OSError: the lock cannot be written.
        """
        self._path = folder.with_name(f".{folder.name}.lock")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._me = _this_process()
        self._remove_unfinished()
        while not self._taken():
            owner = self._owner()
            if owner is not None and _may_live(owner):
                raise UserError(
                    f"run folder {folder} is in use: process {owner.get('process')} on {owner.get('host')} has written "
                    f"to it since {owner.get('since')}. Wait for it, stop it, or choose another run.name; if it has "
                    f"ended, remove {self._path}"
                )
            self._remove_stale()

    def _remove_unfinished(self) -> None:
        """What processes that were killed as they took the lock left beside it, long ago: another host's may live."""
        for path in self._path.parent.glob(f"{self._path.name}.*"):
            number = path.name.removeprefix(f"{self._path.name}.").removeprefix("stale-")
            if number.isdigit() and not lives_elsewhere(int(number)):
                with suppress(OSError):
                    if time.time() - path.stat().st_mtime > LEFT_BEHIND:
                        path.unlink()

    def _taken(self) -> bool:
        """Whole or not there: written beside and linked to its name, which fails where there is one."""
        mine = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        mine.write_text(json.dumps(self._me))
        try:
            os.link(mine, self._path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            return self._created()
        finally:
            mine.unlink()
        return True

    def _created(self) -> bool:
        """On file systems without hard links: made if there is none, in one write. Who reads it before that write finds
        it empty, waits a moment, and finds it whole or left behind."""
        try:
            descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            return False
        try:
            os.write(descriptor, json.dumps(self._me).encode())
        finally:
            os.close(descriptor)
        return True

    def _owner(self) -> dict[str, Any] | None:
        """None: it is gone by now, or is no lock of ours."""
        try:
            if self._path.stat().st_size == 0:
                time.sleep(BEING_WRITTEN)
            owner = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return None
        return owner if isinstance(owner, dict) else None

    def _remove_stale(self) -> None:
        """Renamed first: of two processes that found it stale, one gets it."""
        stale = self._path.with_name(f"{self._path.name}.stale-{os.getpid()}")
        try:
            self._path.rename(stale)
        except FileNotFoundError:
            return
        stale.unlink()

    def release(self) -> None:
        if self._owner() == self._me:
            self._path.unlink(missing_ok=True)


def _this_process() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "started": _start_of(os.getpid()),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _may_live(owner: dict[str, Any]) -> bool:
    if owner.get("host") != socket.gethostname():
        return True
    process, started = owner.get("process"), owner.get("started")
    if not isinstance(process, int) or not isinstance(started, float):
        return False
    now = _start_of(process)
    return now is not None and abs(now - started) < SAME_START


def _start_of(process: int) -> float | None:
    """Seconds since 1970; None if there is no such process."""
    import psutil

    try:
        return float(psutil.Process(process).create_time())
    except psutil.Error:
        return None
