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

from rl.drawing.tensorboard import TensorBoard
from rl.run.lines import Row, read_lines, replace_lines
from rl.storage.disk import append, writing
from rl.storage.events import EventFile

STAGES = ("rollout", "reward", "learn", "weights", "evaluate", "checkpoint")
"""What the seconds of an update are counted for, as `seconds/STAGE`; `seconds/other` is the rest of them."""
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
        self._may_be_nonfinite = frozenset(may_be_nonfinite)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        rows = read_rows(self._path)
        replace_lines(self._path, map(_line, rows))  # without what a killed process left of a last line
        self._last_update = rows[-1]["update"] if rows else -1
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        self.tensorboard = TensorBoard(EventFile(folder / "tensorboard", note))
        for row in rows:
            self._show(row)
        self.tensorboard.flush()

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
        self.tensorboard.flush()
        self._last_update = update
        return row

    def close(self) -> None:
        self.tensorboard.close()

    def _show(self, row: Row) -> None:
        self.tensorboard.scalars(row["update"], row[CLOCK], {n: row[n] for n in row.keys() - {"update", CLOCK}})

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


def costs(rows: list[Row]) -> dict[str, Any]:
    """For the summary: where the seconds of a run went, of its starts, too; they add up to `seconds`."""
    stages = {name: sum(row.get(f"seconds/{name}", 0.0) for row in rows) for name in ("start", *STAGES, "other")}
    return {
        "steps": len(rows),
        "seconds": sum(row["seconds/update"] for row in rows) + stages["start"],
        "stage_seconds": stages,
        "max_logprob_gap": max((row["logp/max_error"] for row in rows if "logp/max_error" in row), default=None),
        "first_ratio_error": rows[0].get("ratio/max_error") if rows else None,
    }


def _line(row: Row) -> str:
    """Strict JSON has no NaN: null stands for it."""
    finite = {name: value if math.isfinite(value) else None for name, value in row.items()}
    return json.dumps(finite, allow_nan=False) + "\n"
