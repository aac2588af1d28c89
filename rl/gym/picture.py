"""The gym's results as a picture: gains with their intervals, and gains against what learning cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rl.drawing.plots import BLUE, GREEN, GREY, ORANGE
from rl.gym.lines import Line

COLOURS = (BLUE, ORANGE, GREEN, GREY, "#CC79A7", "#56B4E9")
LABELLED = 12
"""Points with a name in the second panel; more would hide each other."""


def draw(lines: Sequence[Line], title: str, path: Path) -> None:
    """Writes a PNG.

    Args:
        lines: the largest gain first.
    """
    figure = Figure(figsize=(12.0, max(4.0, 1.4 + 0.24 * len(lines))), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    gains, costs = figure.subplots(1, 2, width_ratios=(1.0, 1.2))
    settings = sorted({(line.setting, line.base) for line in lines})
    colours = {setting: COLOURS[i % len(COLOURS)] for i, (setting, _) in enumerate(settings)}
    _draw_gains(gains, lines, colours)
    _draw_costs(costs, lines, colours, dict(settings))
    for axes in (gains, costs):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)
    figure.suptitle(title)
    figure.savefig(path)


def _draw_gains(axes: Axes, lines: Sequence[Line], colours: dict[str, str]) -> None:
    for place, line in enumerate(reversed(lines)):
        colour, gain = colours[line.setting], line.gain
        axes.plot([gain.low, gain.high], [place, place], color=colour, linewidth=1.6, solid_capstyle="butt")
        filled = colour if gain.low > 0 else "white"
        marker = "D" if line.ours else "o"
        axes.plot(gain.value, place, marker=marker, color=colour, markerfacecolor=filled, markersize=5)
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(lines)), [line.name + (" (ours)" if line.ours else "") for line in reversed(lines)])
    axes.tick_params(axis="y", labelsize=8)
    axes.set_ylim(-0.7, len(lines) - 0.3)
    axes.set_xlabel("gain in held-out problems solved, 95 % intervals\n(filled: significant)")


def _draw_costs(axes: Axes, lines: Sequence[Line], colours: dict[str, str], bases: dict[str, str]) -> None:
    for setting, base in bases.items():
        mine = [line for line in lines if line.setting == setting]
        for ours, marker in ((False, "o"), (True, "D")):
            some = [line for line in mine if line.ours is ours]
            label = f"{setting} ({base})" + (", ours" if ours else "")
            if some:
                x, y = [line.rows for line in some], [line.gain.value for line in some]
                axes.plot(x, y, marker, color=colours[setting], markersize=5, label=label)
    for line in lines[:LABELLED]:
        axes.annotate(
            line.name, (line.rows, line.gain.value), xytext=(4, 3), textcoords="offset points", fontsize=7, color=GREY
        )
    axes.axhline(0.0, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("rows that the learner scored")
    axes.set_ylabel("gain")
    axes.legend(frameon=False, fontsize=8, loc="best")
