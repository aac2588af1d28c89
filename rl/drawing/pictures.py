"""Pictures of what an image model draws: kept samples, grids, denoising strips, before and after."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from rl.drawing.layout import Block, Tile, draw
from rl.drawing.plots import GREEN, GREY, ORANGE

KEPT = 16
"""Samples of an evaluation that are kept."""
PROMPTS = "prompts.json"


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
        solved: (problems,) of 0 and 1 (NaN: unscored), for the images in their order; may go on behind them.
    """
    prompts, before = kept_images(folders[0])
    _, after = kept_images(folders[1])
    blocks = [
        Block(prompt, [_judged("before", old, was), _judged("after", new, became)])
        for prompt, old, was, new, became in zip(prompts, before, solved[0], after, solved[1], strict=False)
    ]
    draw(blocks, "Before and after training, from the same noise. ✓ solved, ✗ not solved, ? not scored").save(path)


def _judged(name: str, image: np.ndarray, solved: float) -> Tile:
    if np.isnan(solved):
        return Tile(image, f"{name} ?", GREY)
    return Tile(image, f"{name} ✓", GREEN) if solved else Tile(image, f"{name} ✗", ORANGE)


def grid(captions: Sequence[str], images: Sequence[Sequence[np.ndarray]], path: Path) -> None:
    """The samples of each prompt under its text."""
    draw([Block(caption, [Tile(i) for i in row]) for caption, row in zip(captions, images, strict=True)]).save(path)


def strips(captions: Sequence[str], images: Sequence[Sequence[np.ndarray]], path: Path) -> None:
    """How samples came about, one caption a sample: its estimates of the image step by step, then the image itself."""
    blocks = []
    for caption, (*estimates, result) in zip(captions, images, strict=True):
        steps = [Tile(estimate, f"step {number}") for number, estimate in enumerate(estimates, 1)]
        blocks.append(Block(caption, [*steps, Tile(result, "image")]))
    draw(blocks, "What each step takes the image to be, and the image").save(path)
