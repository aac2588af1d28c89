"""Images with captions on one page: small ones enlarged by whole factors, big ones reduced, long rows folded."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

# Pixels
PAGE = 1600
"""Width that a page's images share."""
MOST_SIDE = 256
"""Of an image on the page."""
GAP, FRAME, MARGIN = 8, 3, 14
CAPTION_SIZE, LABEL_SIZE, LINE = 14, 12, 18
NARROWEST_CAPTION = 150

CAPTION_LINES = 4
FOLD = 12
"""A block's images continue on another line when there are more."""
SIDE_BY_SIDE = 8
"""Blocks of one or two images share a line until it has this many."""
BLACK, GREY, WHITE = "#000000", "#555555", "#ffffff"


@dataclass(frozen=True)
class Tile:
    image: np.ndarray
    """(height, width, 3) uint8"""
    label: str = ""
    """Written below the image."""
    frame: str | None = None
    """Colour"""


@dataclass(frozen=True)
class Block:
    caption: str
    tiles: Sequence[Tile]


def draw(blocks: Sequence[Block], title: str = "") -> Image.Image:
    """The page; its height grows with the blocks."""
    columns = _balanced(max(len(block.tiles) for block in blocks), FOLD)
    across = _balanced(len(blocks), SIDE_BY_SIDE // columns) if columns <= 2 else 1
    side = min(MOST_SIDE, PAGE // (across * columns))
    rows = [_side_by_side(blocks[start : start + across], columns, side) for start in range(0, len(blocks), across)]
    width = max(row.width for row in rows)
    if title:
        rows.insert(0, _text(title, width, LABEL_SIZE, GREY))
    body = _stacked(rows, 2 * GAP)
    page = Image.new("RGB", (body.width + 2 * MARGIN, body.height + 2 * MARGIN), WHITE)
    page.paste(body, (MARGIN, MARGIN))
    return page


def shown(image: np.ndarray, side: int) -> Image.Image:
    """Enlarged by the largest whole factor that lets its longer edge be at most `side`, or reduced to that."""
    picture = Image.fromarray(image)
    longest = max(picture.size)
    if longest > side:
        width, height = (max(1, round(edge * side / longest)) for edge in picture.size)
        return picture.resize((width, height), Image.Resampling.LANCZOS)
    factor = side // longest
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def wrapped(text: str, width: int, size: int) -> list[str]:
    """Lines that are at most `width` pixels wide; what does not fit into a few of them is left out, and "…" says so."""
    font = _font(size)
    for characters in range(int(width // font.getlength("i")), 1, -1):
        lines = textwrap.wrap(text, characters, max_lines=CAPTION_LINES, placeholder="…")
        if all(font.getlength(line) <= width for line in lines):
            return lines
    return []


def _balanced(count: int, most: int) -> int:
    """Members of a line when `count` fill the fewest lines of at most `most`, all about equally long."""
    return -(-count // -(-count // most))


def _side_by_side(blocks: Sequence[Block], columns: int, side: int) -> Image.Image:
    """Blocks whose images start at the same height, below the longest of their captions."""
    bodies = [_body(block, columns, side) for block in blocks]
    width = max(NARROWEST_CAPTION, *(body.width for body in bodies))
    captions = [_text(block.caption, width, CAPTION_SIZE, BLACK) for block in blocks]
    lowest = max(caption.height for caption in captions)
    height = lowest + max(body.height for body in bodies)
    line = Image.new("RGB", (len(blocks) * (width + 2 * GAP) - 2 * GAP, height), WHITE)
    for index, (caption, body) in enumerate(zip(captions, bodies, strict=True)):
        line.paste(caption, (index * (width + 2 * GAP), lowest - caption.height))
        line.paste(body, (index * (width + 2 * GAP), lowest))
    return line


def _body(block: Block, columns: int, side: int) -> Image.Image:
    """The images of a block, `columns` a line."""
    tiles = [_tile(tile, side) for tile in block.tiles]
    width, height = max(tile.width for tile in tiles), max(tile.height for tile in tiles)
    lines = -(-len(tiles) // columns)
    across = min(columns, len(tiles))
    body = Image.new("RGB", (across * (width + GAP) - GAP, lines * (height + GAP) - GAP), WHITE)
    for index, tile in enumerate(tiles):
        line, column = divmod(index, columns)
        body.paste(tile, (column * (width + GAP), line * (height + GAP)))
    return body


def _tile(tile: Tile, side: int) -> Image.Image:
    picture = shown(tile.image, side)
    edge = FRAME if tile.frame else 0
    framed = Image.new("RGB", (picture.width + 2 * edge, picture.height + 2 * edge), tile.frame or WHITE)
    framed.paste(picture, (edge, edge))
    return _stacked([framed, _text(tile.label, framed.width, LABEL_SIZE, GREY)], 0) if tile.label else framed


def _text(text: str, width: int, size: int, colour: str) -> Image.Image:
    lines = wrapped(text, width, size)
    picture = Image.new("RGB", (width, len(lines) * LINE), WHITE)
    pen = ImageDraw.Draw(picture)
    for index, line in enumerate(lines):
        pen.text((0, index * LINE), line, colour, _font(size))
    return picture


def _stacked(pictures: Sequence[Image.Image], gap: int) -> Image.Image:
    height = sum(picture.height for picture in pictures) + gap * (len(pictures) - 1)
    whole = Image.new("RGB", (max(picture.width for picture in pictures), height), WHITE)
    top = 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height + gap
    return whole


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(findfont("DejaVu Sans"), size)
