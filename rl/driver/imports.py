"""The imports of a starting process."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module


@contextmanager
def collector_paused() -> Iterator[None]:
    """For a block that imports a lot: what a module makes stays, and the cyclic collector would walk all of it again
    and again, for a sixth of the seconds of an import of torch and transformers."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def import_ahead(module: str) -> None:
    """In a thread, while this one waits for processes; whoever imports it later waits for the rest."""
    threading.Thread(target=import_module, args=(module,), daemon=True, name=f"import {module}").start()
