"""The gym's results as a picture: gains with their intervals, and gains against what learning cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from rl.drawing.plots import BLUE, GREEN, GREY, ORANGE
from rl.gym.lines import Line

COLOURS = (BLUE, ORANGE, GREEN, GREY, "#CC79A7", "#56B4E9")
LABELLED = 12
"""Points with a name in the second panel, at most: those for which there is room. The first panel names all."""
PLACES = [(5, 3), (5, -9), (-5, 3), (-5, -9), (5, 12), (5, -18), (-5, 12), (-5, -18), (5, 21), (-5, 21)]
"""Of a label's corner from its point, in points of the figure; negative x: it ends there."""


def draw(lines: Sequence[Line], title: str, path: Path) -> None:
    """Writes a PNG.

    Args:
        lines: the largest gain first.
    """
    drawn(lines, title).savefig(path)


def drawn(lines: Sequence[Line], title: str) -> Figure:
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
    figure.draw_without_rendering()  # now it is known where everything lies
    figure.set_layout_engine("none")
    _label(costs, lines[:LABELLED])
    return figure


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
    axes.axhline(0.0, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("rows that the learner scored")
    axes.set_ylabel("gain")
    axes.legend(frameon=False, fontsize=8, loc="best")


def _label(axes: Axes, lines: Sequence[Line]) -> list[Text]:
    """Names beside their points, none over another, over a point, over the legend or beyond the axes."""
    canvas = axes.figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    renderer = canvas.get_renderer()
    legend = axes.get_legend()
    taken = [] if legend is None else [legend.get_window_extent(renderer)]
    if legend is not None:  # "best" would look for a place again
        (left, bottom), _ = axes.transAxes.inverted().transform(taken[0])
        legend.set_loc((left, bottom))
    size = 3 * axes.figure.dpi / 72
    for drawn in axes.get_lines():
        if drawn.get_marker() not in ("None", "", None):
            for x, y in axes.transData.transform(drawn.get_xydata()):
                taken.append(Bbox.from_extents(x - size, y - size, x + size, y + size))
    inside = axes.get_window_extent(renderer)
    written: list[Text] = []
    for line in lines:
        for x, y in PLACES:
            text = axes.annotate(
                line.name,
                (line.rows, line.gain.value),
                xytext=(x, y),
                textcoords="offset points",
                fontsize=7,
                color=GREY,
                horizontalalignment="left" if x > 0 else "right",
            )
            box = text.get_window_extent(renderer)
            within = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
            if within and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                written.append(text)
                break
            text.remove()
    return written
