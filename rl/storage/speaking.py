"""A stream that never fails: what cannot be written there is lost, and the run that speaks goes on."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any, TextIO, cast

REFUSED = (OSError, ValueError)
"""A full disk, a reader that is gone, a closed terminal; a closed stream, a character that it cannot encode."""


class Unfailing:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(*REFUSED):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(*REFUSED):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def unfailing(stream: TextIO) -> TextIO:
    return cast(TextIO, Unfailing(stream))


def leave_quietly() -> None:
    """Before a program ends: what standard streams still hold is written, or forgotten where it cannot be, which the
    interpreter would complain about."""
    for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except REFUSED:
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
