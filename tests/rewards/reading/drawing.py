"""Pictures with a word in them: real words in the fonts that matplotlib carries, the same on every machine."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from reasoning_gym.data import get_data_file_path

FONTS = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf",
    "DejaVuSansMono.ttf",
    "STIXGeneral.ttf",
    "STIXGeneralBol.ttf",
)


def words(count: int) -> list[str]:
    """Different English words of four to nine letters: small, capitalised or all in capitals."""
    lines = get_data_file_path("words3to10.txt").read_text(encoding="utf-8").split()
    usable = sorted({line.lower() for line in lines if 4 <= len(line) <= 9 and line.isascii() and line.isalpha()})
    random = np.random.default_rng(0)
    chosen = random.choice(usable, size=count, replace=False)
    return [(str.lower, str.capitalize, str.upper)[random.integers(3)](str(word)) for word in chosen]


def drawn(word: str, side: int, size: float, font: str = FONTS[0], seed: int = 0, centred: bool = False) -> np.ndarray:
    """(side, side, 3) uint8: a dark word on a light ground or the other way round, at a random place unless centred.

    Args:
        size: of the font, in pixels; smaller where the word would not fit otherwise.
    """
    random = np.random.default_rng(seed)
    light, dark = random.integers(200, 256, 3), random.integers(0, 70, 3)
    ground, ink = (light, dark) if random.random() < 0.7 else (dark, light)
    image = Image.new("RGB", (side, side), tuple(ground.tolist()))
    draw = ImageDraw.Draw(image)
    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / font
    while (box := draw.textbbox((0, 0), word, font=ImageFont.truetype(file, size)))[2] > 0.92 * side:
        size -= 0.5
    room = (side - box[2], side - box[3])
    share = (0.5, 0.5) if centred else random.uniform(0.1, 0.9, 2)
    corner = (room[0] * share[0], room[1] * share[1])
    draw.text(corner, word, font=ImageFont.truetype(file, size), fill=tuple(ink.tolist()))
    return np.asarray(image)


def prompt(word: str) -> str:
    return f'a sign that says "{word}"'


def shown(count: int) -> tuple[list[str], list[np.ndarray]]:
    """That many words and a legible picture of each: all fonts, letters of 22 to 44 pixels, 192 or 256 in all."""
    chosen, random = words(count), np.random.default_rng(1)
    pictures = [
        drawn(word, (192, 256)[index % 2], random.uniform(22, 44), FONTS[index % len(FONTS)], seed=index)
        for index, word in enumerate(chosen)
    ]
    return chosen, pictures
