"""The folder of a run, on a disk that may refuse: what ends the run then, what it goes on without, and how to go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.signals import present
from configs.errors import UserError
from configs.schema import RunOptions
from rl.run.checkpoint import checkpoint_bytes, complete_checkpoints, remove_leftovers
from rl.storage.disk import CannotWrite, check_room, remove_unfinished, writing


class Place:
    def __init__(self, options: RunOptions, note: Callable[[str], None]) -> None:
        self.folder = Path(options.folder) / options.name
        self.checkpoints = self.folder / "checkpoints"
        self._options = options
        self._note = note
        self._without: set[str] = set()
        self._said = False
        self._size: int | None = None

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Raises UserError where the folder cannot be written."""
        try:
            with writing(self.folder):
                yield
        except CannotWrite as error:
            raise UserError(f"run folder {self.folder} cannot be written: {error}; then {self.going_on()}") from error

    @contextmanager
    def ending(self) -> Iterator[None]:
        """What ends the block early, a disk or a signal, says how to go on, once."""
        try:
            yield
        except BaseException as error:
            number = present().first
            if not self._said and isinstance(error, CannotWrite):
                error.args = (f"{error}; then {self.going_on()}",)
                self._said = True
            elif not self._said and (number is not None or isinstance(error, KeyboardInterrupt)):
                self._note(f"{'interrupted' if number is None else number.name}: {self.going_on()}")
                self._said = True
            raise

    def going_on(self) -> str:
        if (newest := self._newest()) is None:
            return "the same command begins anew, since there is no checkpoint yet"
        return f"the same command{'' if self._options.resume else ' with run.resume=true'} goes on from {newest}"

    @contextmanager
    def dispensable(self, what: str) -> Iterator[None]:
        """For what is only looked at: where it cannot be written, the run says so once and goes on."""
        try:
            with writing(self.folder):
                yield
        except CannotWrite as error:
            if what not in self._without:
                self._without.add(what)
                self._note(f"{what} cannot be kept: {error}")

    def remove_unfinished(self) -> None:
        """What killed processes left half-written."""
        remove_leftovers(self.checkpoints)
        for folder in (self.folder, self.folder / "trajectories"):
            remove_unfinished(folder)

    def expect_checkpoint(self, size: int | None = None) -> None:
        """
        Args:
            size: bytes that it will take; None is what the newest one takes, or what was said before.

        Raises:
            CannotWrite: there is no room for it.
        """
        if size is not None:
            self._size = size
        elif (newest := self._newest()) is not None:
            self._size = checkpoint_bytes(newest)
        if self._size is not None and self._options.checkpoint_every:
            check_room(self.checkpoints, self._size, "a checkpoint")

    def _newest(self) -> Path | None:
        try:
            return next(iter(complete_checkpoints(self.checkpoints)), None)
        except OSError:  # a folder that cannot be read, which is why somebody asks
            return None
