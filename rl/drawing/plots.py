"""The learning curve as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

# Okabe and Ito's palette, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#555555"
HELD_OUT = {"reward": "held-out reward", "solve_rate": "held-out problems solved"}
"""What is drawn of an evaluation, from top to bottom, with the name of its axis."""
EVALUATIONS = {"greedy": (ORANGE, "o", "greedy"), "sampled": (GREEN, "s", "sampled")}


def reward_curve(rows: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Training reward, held-out reward, and held-out solve rate where it is defined, over updates; written as PNG.

    Args:
        rows: metrics rows with `update` and, where any sample was scored, `reward/mean`.
        evaluations: rows with `update` (the number of updates done) and, for `greedy` and `sampled` where measured,
            `evaluation/greedy/reward` and `.../solve_rate`, with the ends `..._low` and `..._high` of their 95 %
            intervals where these are known. May be empty: then there is one panel.
    """
    if not rows:
        raise ValueError("there is no update to draw: metrics.jsonl is empty")
    names = [f"evaluation/{kind}/" for kind in EVALUATIONS]
    held_out = [what for what in HELD_OUT if any(name + what in row for row in evaluations for name in names)]
    figure = Figure(figsize=(7.0, 3.4 + 2.2 * len(held_out)), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1 + len(held_out), 1, sharex=True, squeeze=False)[:, 0]
    _draw_reward(axes[0], rows)
    for panel, what in zip(axes[1:], held_out, strict=True):
        _draw_evaluations(panel, evaluations, what)
    if "solve_rate" in held_out:
        axes[-1].set_ylim(0.0, 1.0)
        axes[-1].yaxis.set_major_formatter(PercentFormatter(xmax=1.0, decimals=0))
    axes[-1].set_xlabel("updates")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(axis="y", color="#dddddd", linewidth=0.6)
        each.set_axisbelow(True)
    figure.align_ylabels()
    figure.savefig(path)


def smooth(values: np.ndarray, half_width: float) -> np.ndarray:
    """Gaussian-weighted mean around each point, over the points there are: the ends do not lag as a running mean's do.

    Args:
        values: (U,); NaN has no weight, and stays where there is nothing else near.
        half_width: standard deviation of the weights, in points.
    """
    radius = int(4 * half_width)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / half_width) ** 2)
    inside = slice(radius, radius + len(values))
    scored = ~np.isnan(values)
    weight = np.convolve(scored, kernel)[inside]
    total = np.convolve(np.where(scored, values, 0.0), kernel)[inside]
    return np.divide(total, weight, out=np.full(len(values), np.nan), where=weight > 0)


def _draw_reward(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    updates = np.array([row["update"] for row in rows])
    rewards = np.array([row.get("reward/mean", np.nan) for row in rows], dtype=np.float64)
    axes.plot(updates, rewards, color=BLUE, alpha=0.3, linewidth=0.9, label="each update")
    axes.plot(updates, smooth(rewards, max(1.0, len(rows) / 40)), color=BLUE, linewidth=2.0, label="smoothed")
    axes.set_ylabel("training reward")
    axes.legend(frameon=False, loc="best")


def _draw_evaluations(axes: Axes, evaluations: Sequence[Mapping[str, Any]], what: str) -> None:
    for kind, (colour, marker, label) in EVALUATIONS.items():
        name = f"evaluation/{kind}/{what}"
        measured = [row for row in evaluations if name in row]
        if not measured:
            continue
        updates = [row["update"] for row in measured]
        low, high = ([row.get(f"{name}_{end}", np.nan) for row in measured] for end in ("low", "high"))
        axes.fill_between(updates, low, high, color=colour, alpha=0.16, linewidth=0)
        axes.plot(updates, [row[name] for row in measured], color=colour, marker=marker, markersize=4.5, label=label)
    axes.set_ylabel(HELD_OUT[what])
    axes.legend(frameon=False, loc="best", title="with 95 % interval", alignment="left")
