"""Streams that never fail: what cannot be written there is lost, and who speaks goes on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

REFUSED = (OSError, ValueError)
"""A full disk, a reader that is gone, a closed terminal; a closed stream, a character that it cannot encode."""


class Unfailing:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost: str | None = None
        """Why something could not be written first, where somebody may miss it: a reader that is gone does not."""

    def write(self, text: str) -> int:
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def _attempt(self, step: Any) -> None:
        try:
            step()
        except REFUSED as error:
            if not isinstance(error, BrokenPipeError):
                self.lost = self.lost or str(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def unfailing(stream: TextIO) -> TextIO:
    return cast(TextIO, Unfailing(stream))


@contextmanager
def unfailing_output() -> Iterator[Unfailing]:
    """Standard output and error are unfailing in the block; gives standard output."""
    before = sys.stdout, sys.stderr
    output = Unfailing(before[0])
    sys.stdout, sys.stderr = cast(TextIO, output), unfailing(before[1])
    try:
        yield output
    finally:
        sys.stdout, sys.stderr = before


def flush_output() -> None:
    """Before the interpreter does: of what it cannot write it complains."""
    for stream, descriptor in ((sys.__stdout__, 1), (sys.__stderr__, 2)):
        try:
            if stream is not None:
                stream.flush()
        except REFUSED:
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
