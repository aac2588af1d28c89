"""What reward functions print, kept in a file that cannot grow without end."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

LIMIT_BYTES = 4 * 2**20
_ENDS = b"\n(what was printed after this is not kept: the file has reached its limit)\n"


class Printed:
    """A pipe for each scoring process, emptied into one file by a thread of its own, so that a function that prints
    without end neither waits nor fills a disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def open(self) -> int:
        """The end to write to, for the process; close it here once the process has it."""
        reading, writing = os.pipe()
        self._thread = threading.Thread(target=self._copy, args=(reading,), daemon=True, name="printed")
        self._thread.start()
        return writing

    def settle(self, seconds: float) -> None:
        """Wait until what the last process printed is in the file; a process that it left behind may still print."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _copy(self, reading: int) -> None:
        with suppress(OSError), open(reading, "rb", buffering=0) as pipe:
            while chunk := pipe.read(65536):
                with suppress(OSError):  # a full disk is no reason to stop reading: the function would wait for ever
                    self._keep(chunk)

    def _keep(self, chunk: bytes) -> None:
        with self._lock:
            size = self.path.stat().st_size if self.path.exists() else 0
            if size >= LIMIT_BYTES:
                return
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(chunk if size + len(chunk) < LIMIT_BYTES else chunk[: LIMIT_BYTES - size] + _ENDS)
