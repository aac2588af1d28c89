"""How a run is doing, on the terminal: a live panel, or a line an update where there is no terminal."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rewards.printable import printable

STAGES = ("rollout", "reward", "learn", "weights", "evaluate", "checkpoint", "other")
"""Where an update's time goes; stage s costs `seconds/s`, the whole update `seconds/update`."""
RECENT = 20
"""Updates that costs are averaged over, and whose median tells the remaining time."""
BARS = "▁▂▃▄▅▆▇█"


class Progress:
    """Shows the curves and the costs (`seconds/...`) of each update as it ends.

    With `max_staleness` above 0 stages overlap, and their shares of an update's time may add up to more than 100 %.
    """

    def __init__(
        self,
        name: str,
        updates: int,
        first_update: int = 0,
        curves: Sequence[str] = ("reward/mean", "reward/solve_rate"),
        console: Console | None = None,
    ) -> None:
        """
        Args:
            updates: of the whole run.
            first_update: updates that were already done when this process started.
            curves: metrics to draw; an update without one is a gap.
        """
        self._name = name
        self._updates = updates
        self._done = first_update
        self.console = console or Console()
        self._curves: dict[str, list[float]] = {curve: [] for curve in curves}
        self._recent: deque[Mapping[str, float]] = deque(maxlen=RECENT)
        self._evaluation: str | None = None
        self._live: Live | None = None
        if self.console.is_terminal and not os.environ.get("CI"):
            self._live = Live(self.panel(), console=self.console, refresh_per_second=2)

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def show_start(self, step: str, seconds: float) -> None:
        """Take a step of the start, and the seconds after which it was done; before the panel is there."""
        self._print(f"{self._name}  start {seconds:5.1f} s  {step}")

    def show_update(self, row: Mapping[str, Any]) -> None:
        """Take the metrics row of the update that just ended."""
        self._done = int(row["update"]) + 1
        for curve, history in self._curves.items():
            history.append(row.get(curve, math.nan))  # of an update that has none
        self._recent.append(row)
        if self._live:
            self._live.update(self.panel())
        else:
            self._print(self._line())

    def show_evaluation(self, update: int, text: str) -> None:
        """Take the result of an evaluation in words, such as `greedy 61.0 % (54.1 to 67.5)`."""
        self._evaluation = f"after update {update}: {text}"
        if self._live:
            self._live.update(self.panel())
        else:
            self._print(f"{self._name}  held out {self._evaluation}")

    def panel(self) -> RenderableType:
        head = Table.grid(padding=(0, 2))
        head.add_row("updates", ProgressBar(self._updates, self._done, width=40), f"{self._done}/{self._updates}")
        for curve, history in self._curves.items():
            if history:
                head.add_row(curve, sparkline(history, 40), f"{history[-1]:.3f}")
        if self._evaluation:
            head.add_row("held out", self._evaluation, "")
        if not self._recent:
            return Panel(Group(head, Text("waiting for the first update", style="dim")), title=self._name)
        return Panel(Group(head, Text(), self._costs()), title=self._name, subtitle=f"{self._remaining()} left")

    def _costs(self) -> Table:
        table = Table(box=None, padding=(0, 2), header_style="dim")
        table.add_column("stage")
        table.add_column("seconds", justify="right")
        table.add_column("share", justify="right")
        table.add_column("")
        whole = self._recent_mean("update")
        for stage in STAGES:
            seconds = self._recent_mean(stage)
            share = seconds / whole if whole else 0.0
            table.add_row(stage, f"{seconds:.2f}", f"{share:.0%}", ProgressBar(1.0, min(share, 1.0), width=20))
        table.add_row("update", f"{whole:.2f}", "", "", style="bold")
        return table

    def _line(self) -> str:
        row = self._recent[-1]
        whole = row["seconds/update"]
        shares = [
            f"{stage} {row[f'seconds/{stage}']:.1f} s {row[f'seconds/{stage}'] / whole:.0%}"
            for stage in STAGES
            if row.get(f"seconds/{stage}", 0.0) > 0.0 and whole > 0.0
        ]
        curves = "  ".join(f"{curve} {history[-1]:.3f}" for curve, history in self._curves.items())
        return (
            f"{self._name}  update {self._done}/{self._updates}  {curves}  "
            f"{whole:.1f} s ({', '.join(shares)})  {self._remaining()} left"
        )

    def _print(self, line: str) -> None:
        self.console.print(printable(line), soft_wrap=True, markup=False, highlight=False)

    def _recent_mean(self, stage: str) -> float:
        """Seconds an update, over the recent ones; a stage that an update did not have cost it nothing."""
        return sum(row.get(f"seconds/{stage}", 0.0) for row in self._recent) / len(self._recent)

    def _remaining(self) -> str:
        """A median: an update with an evaluation, or the first one, says little of the others."""
        return duration((self._updates - self._done) * median(row["seconds/update"] for row in self._recent))


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def sparkline(values: Sequence[float], width: int) -> str:
    """The whole history in at most `width` characters, each the mean of an equal share of it; NaN is a gap."""
    count = min(width, len(values))
    edges = [len(values) * i // count for i in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    finite = [value for value in means if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] if math.isfinite(value) else " " for value in means)
