"""A file that TensorBoard reads, written here and now; where it cannot be written, the run says so once and goes on.

TensorBoard's own `EventFileWriter` writes in a thread, which prints a traceback when the disk is full, and raises what
happened behind whatever is written next.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter

from rl.storage.disk import CannotWrite, writing

_numbers = count()


class EventFile:
    """Has the methods of `EventFileWriter`."""

    def __init__(self, folder: Path, note: Callable[[str], None]) -> None:
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self._path = folder / name
        self._note = note
        self._records: RecordWriter | None = None
        self._attempt(self._open)

    def add_event(self, event: Event) -> None:
        self._attempt(lambda: self._records and self._records.write(event.SerializeToString()))

    def flush(self) -> None:
        self._attempt(lambda: self._records and self._records.flush())

    def close(self) -> None:
        self._attempt(lambda: self._records and self._records.close())

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._records = RecordWriter(self._path.open("wb"))
        self.add_event(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def _attempt(self, step: Callable[[], object]) -> None:
        try:
            with writing(self._path.parent):
                step()
        except CannotWrite as error:
            self._records = None
            self._note(f"TensorBoard is not told of the rest: {error}. Its files are made again when the run goes on")
