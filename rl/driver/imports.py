"""The imports of a starting process, side by side with what else must be waited for."""

from __future__ import annotations

import gc
import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from configs.schema import Config, SourceKind
from models.options import Modality
from rewards.registry import REGISTERED


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


@contextmanager
def imported_meanwhile(config: Config) -> Iterator[None]:
    """Import what `planned` will need while the block waits for other processes.

    Errors are none of this thread's business: the same import is then made, and reported, where it belongs. Functions
    that are not ours are left out, because their modules may count on the main thread.
    """
    modules = list(_needed(config))
    thread = threading.Thread(target=_import_all, args=(modules,), name="imports", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _import_all(modules: list[str]) -> None:
    for module in modules:
        with suppress(Exception):
            importlib.import_module(module)


def _needed(config: Config) -> Iterator[str]:
    image = config.model.modality is Modality.image
    yield "rl.modality.image" if image else "rl.modality.text"
    if not image:
        yield "models.text.tokenizer"
    sources = [*config.data.training().values(), *filter(None, [config.data.evaluation])]
    if any(source.kind is SourceKind.reasoning_gym for source in sources):
        yield "reasoning_gym.factory"
    for term in config.reward.terms.values():
        if term.function in REGISTERED:
            yield REGISTERED[term.function].rpartition(".")[0]
