"""A reliability diagram: what a model predicts against how often it is right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rl.drawing.plots import BLUE, GREY


def calibration_plot(
    predicted: Sequence[float],
    right: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    pairs: Sequence[int],
    title: str,
    path: Path,
) -> None:
    """A point a bin, above the number of pairs in it; written as PNG.

    Args:
        predicted: mean probability of the answer that the model prefers, from 0.5 to 1.
        right: how often that answer is the chosen one; `low` and `high` are the ends of its 95 % interval.
    """
    figure = Figure(figsize=(5.6, 5.6), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    axes.plot([0.5, 1.0], [0.5, 1.0], color=GREY, linewidth=1.0, linestyle="--", label="calibrated")
    below = [max(0.0, value - end) for value, end in zip(right, low, strict=True)]
    above = [max(0.0, end - value) for value, end in zip(right, high, strict=True)]
    axes.errorbar(
        predicted,
        right,
        yerr=[below, above],
        color=BLUE,
        marker="o",
        markersize=4.5,
        capsize=2.5,
        label="95 % interval",
    )
    axes.set_ylabel("held-out pairs that it gets right")
    axes.set_ylim(0.0, 1.03)
    axes.set_title(title, fontsize="medium")
    axes.legend(frameon=False, loc="lower right")
    counts.bar(predicted, pairs, width=0.03, color=BLUE, alpha=0.5)
    for place, count in zip(predicted, pairs, strict=True):
        counts.text(place, count, str(count), ha="center", va="bottom", fontsize="small")
    counts.set_ylabel("pairs")
    counts.set_ylim(0, 1.25 * max(pairs))
    counts.set_xlabel("probability that the model gives to the answer that it prefers")
    counts.set_xlim(0.48, 1.02)
    for each in (axes, counts):
        each.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
