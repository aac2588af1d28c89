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


def before_after(
    folders: tuple[Path, Path], values: tuple[np.ndarray, np.ndarray], path: Path, *, verdicts: bool
) -> None:
    """The same prompts and noise before and after training, side by side: framed by the verdict, or with the reward.

    Args:
        folders: written by `keep_images`.
        values: (problems,) verdicts of 0 and 1, or rewards (NaN: unscored), for the images in their order; may go on
            behind them.
    """
    labelled = _judged if verdicts else _rewarded
    meaning = "✓ solved, ✗ not solved, ? not scored" if verdicts else "The number is the reward, ? not scored"
    prompts, before = kept_images(folders[0])
    _, after = kept_images(folders[1])
    blocks = [
        Block(prompt, [labelled("before", old, was), labelled("after", new, became)])
        for prompt, old, was, new, became in zip(prompts, before, values[0], after, values[1], strict=False)
    ]
    draw(blocks, f"Before and after training, from the same noise. {meaning}").save(path)


def _judged(name: str, image: np.ndarray, solved: float) -> Tile:
    if np.isnan(solved):
        return Tile(image, f"{name} ?", GREY)
    return Tile(image, f"{name} ✓", GREEN) if solved else Tile(image, f"{name} ✗", ORANGE)


def _rewarded(name: str, image: np.ndarray, reward: float) -> Tile:
    return Tile(image, f"{name} ?" if np.isnan(reward) else f"{name} {reward:.3f}", GREY)


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
