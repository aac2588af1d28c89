"""Looking on while a run trains, and ending it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Callback:
    """Subclass it and override what is of interest; all methods are called in the process that drives the run.

    `on_update` and `on_evaluation` may return True: the run then ends behind the present update as it would have at
    its last one, with an evaluation and a checkpoint where the configuration has them.
    """

    def on_start(self, folder: Path, first_update: int) -> None:
        """Before the first update.

        Args:
            folder: of the run; `rl.open_run` reads it.
            first_update: updates that were done before, in a run that goes on.
        """

    def on_update(self, update: int, metrics: Mapping[str, float]) -> bool | None:
        """Behind an update (the first is 0), with its row of metrics.jsonl."""
        return None

    def on_evaluation(self, update: int, metrics: Mapping[str, Any]) -> bool | None:
        """Behind an evaluation of the policy after `update` updates, with its row of evaluations.jsonl."""
        return None

    def on_checkpoint(self, update: int, folder: Path) -> None:
        """When the checkpoint after `update` updates is complete."""

    def on_end(self, summary: Mapping[str, Any]) -> None:
        """At the end, with what summary.json holds; not if the run failed."""


class Callbacks(Callback):
    """Several as one; keeps whether any of them wants the run to end."""

    def __init__(self, several: Sequence[Callback]) -> None:
        self.several = several
        self.stopping = False

    def on_start(self, folder: Path, first_update: int) -> None:
        for each in self.several:
            each.on_start(folder, first_update)

    def on_update(self, update: int, metrics: Mapping[str, float]) -> None:
        for each in self.several:
            self.stopping |= each.on_update(update, metrics) is True

    def on_evaluation(self, update: int, metrics: Mapping[str, Any]) -> None:
        for each in self.several:
            self.stopping |= each.on_evaluation(update, metrics) is True

    def on_checkpoint(self, update: int, folder: Path) -> None:
        for each in self.several:
            each.on_checkpoint(update, folder)

    def on_end(self, summary: Mapping[str, Any]) -> None:
        for each in self.several:
            each.on_end(summary)
