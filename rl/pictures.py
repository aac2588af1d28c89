"""Pictures of what an image model draws: kept samples, grids, denoising strips, before and after."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from rl.plots import GREEN, ORANGE

KEPT = 16
"""Samples of an evaluation that are kept."""
PROMPTS = "prompts.json"
CAPTION_WIDTH = 22


def keep_images(prompts: Sequence[str], images: Sequence[np.ndarray], folder: Path) -> None:
    """The first images as PNG files, without loss, with their prompts."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images[:KEPT]):
        Image.fromarray(image).save(folder / f"{index:02d}.png")
    (folder / PROMPTS).write_text(json.dumps(list(prompts[:KEPT]), indent=1))


def kept_images(folder: Path) -> tuple[list[str], list[np.ndarray]]:
    prompts = json.loads((folder / PROMPTS).read_text())
    return prompts, [np.asarray(Image.open(folder / f"{index:02d}.png")) for index in range(len(prompts))]


def before_after(folders: tuple[Path, Path], solved: tuple[np.ndarray, np.ndarray], path: Path) -> None:
    """The same prompts and noise before and after training, side by side, framed by the verdict.

    Args:
        folders: written by `keep_images`.
        solved: (problems,) of 0 and 1 (NaN: unscored) for the first sample of each problem, in the same order.
    """
    prompts, before = kept_images(folders[0])
    _, after = kept_images(folders[1])
    count = min(len(before), len(after))
    columns = min(4, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(2.9 * columns, 1.95 * rows + 0.35), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, 2 * columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for index in range(count):
        row, column = divmod(index, columns)
        pair = axes[row, 2 * column : 2 * column + 2]
        for axis, image, verdicts, label in zip(pair, (before, after), solved, ("before", "after"), strict=True):
            _framed(axis, image[index], bool(verdicts[index] == 1))
            axis.set_xlabel(label, fontsize=7)
        pair[0].set_title(textwrap.fill(prompts[index], 2 * CAPTION_WIDTH), fontsize=7.5, loc="left")
    figure.suptitle("before | after, same prompt and noise; green: the verifier is satisfied", fontsize=9)
    figure.savefig(path)


def grid(captions: Sequence[str], images: Sequence[Sequence[np.ndarray]], path: Path) -> None:
    """One row a caption; a row's images stand side by side: samples of a prompt, or the steps of one sample."""
    columns = max(len(row) for row in images)
    figure = Figure(figsize=(1.15 * columns + 1.6, 1.2 * len(images)), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(images), columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for row, (caption, samples) in enumerate(zip(captions, images, strict=True)):
        for column, image in enumerate(samples):
            axes[row, column].imshow(image, interpolation="nearest")
        axes[row, 0].set_title(textwrap.fill(caption, 3 * CAPTION_WIDTH), fontsize=7, loc="left")
    figure.savefig(path)


def _framed(axis: Axes, image: np.ndarray, good: bool) -> None:
    axis.set_axis_on()
    axis.imshow(image, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_edgecolor(GREEN if good else ORANGE)
        spine.set_linewidth(2.0)
