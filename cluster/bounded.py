"""Calls of Ray that may wait for frozen processes, with an end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any


class BoundedCall:
    """A call in a thread of its own, which nobody need wait for; what it raises is dropped."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        def call() -> None:
            with suppress(Exception):
                function(*arguments)

        self._thread = threading.Thread(target=call, daemon=True, name=function.__name__)
        self._thread.start()

    def ends_within(self, seconds: float) -> bool:
        """Waits at most so long; a signal ends the wait, not the call."""
        self._thread.join(seconds)
        return self.over

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()
