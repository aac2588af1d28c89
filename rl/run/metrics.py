"""What a run measured: one JSON line an update, and the same numbers for TensorBoard.

The row of update u holds what was measured while it ran. Names are flat, such as `reward/mean`. Whatever depends on the
clock (durations, rates) is named `seconds/...`, so that two runs can be compared without it.
"""

from __future__ import annotations

import json
import math
import numbers
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary

from rl.run.lines import Row, read_lines, replace_lines
from rl.storage.disk import append, writing
from rl.storage.events import EventFile

CLOCK = "seconds/clock"
"""When a row was written, in seconds since 1970: TensorBoard's wall time."""


class MetricsWriter:
    """`metrics.jsonl` is the record; the TensorBoard files are made from it, and made again when a run goes on."""

    def __init__(
        self, folder: Path, may_be_nonfinite: Collection[str] = (), note: Callable[[str], None] = print
    ) -> None:
        """
        Args:
            folder: the run folder; an earlier record there is continued.
            may_be_nonfinite: metrics that are allowed to be NaN or infinite; they are written as null.
            note: is told once if the files of TensorBoard cannot be written; they are made again from the record.
        """
        self._path = folder / "metrics.jsonl"
        self._tensorboard_folder = folder / "tensorboard"
        self._may_be_nonfinite = frozenset(may_be_nonfinite)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        rows = read_rows(self._path)
        replace_lines(self._path, map(_line, rows))  # without what a killed process left of a last line
        self._last_update = rows[-1]["update"] if rows else -1
        shutil.rmtree(self._tensorboard_folder, ignore_errors=True)
        self._tensorboard = EventFile(self._tensorboard_folder, note)
        for row in rows:
            self._show(row)
        self._tensorboard.flush()

    def write(self, update: int, metrics: Mapping[str, float]) -> Row:
        """Append the row of an update.

        Raises:
            ValueError: a metric is not a finite number, or this update has a row already.
        """
        if update <= self._last_update:
            raise ValueError(
                f"{self._path} already holds update {self._last_update}, so update {update} cannot follow: a resumed "
                f"run sets later rows aside first, another run needs another folder"
            )
        row = {"update": update, **{name: self._checked(update, name, metrics[name]) for name in metrics}}
        row[CLOCK] = time.time()
        append(self._path, _line(row))
        self._show(row)
        self._tensorboard.flush()
        self._last_update = update
        return row

    def close(self) -> None:
        self._tensorboard.close()

    def _show(self, row: Row) -> None:
        """One event a row: fifty times fewer records than one a metric, so that a long record is rewritten quickly."""
        values = [Summary.Value(tag=name, simple_value=row[name]) for name in row.keys() - {"update", CLOCK}]
        self._tensorboard.add_event(Event(step=row["update"], wall_time=row[CLOCK], summary=Summary(value=values)))

    def _checked(self, update: int, name: str, value: float) -> int | float:
        if not isinstance(value, numbers.Real) or isinstance(value, bool):
            raise ValueError(f"metric {name} of update {update} is {value!r}, a {type(value).__name__}, not a number")
        if not math.isfinite(value) and name not in self._may_be_nonfinite:
            raise ValueError(f"metric {name} of update {update} is {value}: something upstream is broken")
        return int(value) if isinstance(value, numbers.Integral) else float(value)


def read_rows(path: Path) -> list[Row]:
    """The rows of a `metrics.jsonl`, null as NaN; none if there is no file.

    A last line without its newline, which is being written or was cut off by a crash, is left out.

    Raises:
        UserError: any other line is broken.
    """
    rows, _ = read_lines(path)
    return [{name: math.nan if value is None else value for name, value in row.items()} for row in rows]


def deterministic_view(rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    """The rows without anything that depends on the clock: equal for two runs of the same configuration."""
    return [{name: value for name, value in row.items() if not name.startswith("seconds/")} for row in rows]


def _line(row: Row) -> str:
    """Strict JSON has no NaN: null stands for it."""
    finite = {name: value if math.isfinite(value) else None for name, value in row.items()}
    return json.dumps(finite, allow_nan=False) + "\n"
