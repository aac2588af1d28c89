"""How a sample came about, as an animated GIF: a text being unmasked, an image being denoised."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from rl.drawing.layout import BLACK, MARGIN, WHITE, shown

LAST = 6
"""Frames that the finished sample stays for."""
SIDE = 160
"""Pixels of an image's longer edge, if whole factors make it so."""
TEXT_SIZE = 18
COLUMNS = 60
"""Characters of a line."""


@dataclass(frozen=True, eq=False, repr=False)
class Animation:
    gif: bytes

    def __repr__(self) -> str:
        return f"Animation of {len(self.gif)} bytes; .save(path) writes a GIF"

    def _repr_html_(self) -> str:
        return f'<img alt="denoising" src="data:image/gif;base64,{base64.b64encode(self.gif).decode()}">'

    def save(self, path: str | Path) -> None:
        Path(path).write_bytes(self.gif)


def animated(states: Sequence[str] | Sequence[np.ndarray], milliseconds: int) -> Animation:
    """
    Args:
        states: texts, or images (H, W, 3) of uint8, in order; the last one stays longer.
    """
    frames = _pages([state for state in states if isinstance(state, str)])
    frames += [shown(state, SIDE) for state in states if isinstance(state, np.ndarray)]
    times = [milliseconds] * (len(frames) - 1) + [LAST * milliseconds]
    file = io.BytesIO()
    palette: dict[str, Any] = {"palette": Image.Palette.ADAPTIVE, "colors": 64}
    first, *rest = (frame.convert("P", **palette) for frame in frames)
    first.save(file, "GIF", save_all=True, append_images=rest, duration=times, loop=0)
    return Animation(file.getvalue())


def _pages(texts: Sequence[str]) -> list[Image.Image]:
    """One picture each, all of the same size."""
    if not texts:
        return []
    folded = ["\n".join(_folded(line) for line in text.split("\n")) for text in texts]
    font = _font()
    width = max(font.getlength(line) for text in folded for line in text.split("\n"))
    height = max(text.count("\n") + 1 for text in folded) * (TEXT_SIZE + 6)
    pages = []
    for text in folded:
        page = Image.new("RGB", (int(width) + 2 * MARGIN, height + 2 * MARGIN), WHITE)
        ImageDraw.Draw(page).multiline_text((MARGIN, MARGIN), text, BLACK, font, spacing=6)
        pages.append(page)
    return pages


def _folded(line: str) -> str:
    return "\n".join(line[start : start + COLUMNS] for start in range(0, max(len(line), 1), COLUMNS))


@cache
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(findfont("DejaVu Sans Mono"), TEXT_SIZE)
