"""Does a picture show what its prompt asks for? A detector for the scene world, and criteria in the spirit of GenEval.

The picture is enlarged, pixels take the nearest colour of the palette, and connected pixels of one colour are a blob. A
blob is compared with the circle, the square and the triangle that have its area and its centre of mass; if it overlaps
well with one of them, it is a thing. On rendered scenes the verdict is exact; mild blur, compression and noise do not
change it. Things that touch and have one colour are one blob, which is no shape.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import astuple, dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from rewards.picture import picture
from rewards.scenes.world import (
    BACKGROUND,
    COLOURS,
    LARGEST,
    SHAPES,
    SMALLEST,
    Composition,
    Thing,
    inside,
)

COLOUR_TOLERANCE = 120.0
"""Greatest distance in RGB to a colour of the palette; pixels farther from all of them make blobs that are no thing."""
SPECK = 5.0
"""Blobs of a smaller area, in pixels, are ignored: JPEG, noise and decoders leave such specks beside edges."""
SLACK = 2.0
"""How many pixels a thing's size may lie outside what the world draws."""
OVERLAP = 0.8
"""Least intersection over union of a blob and the shape it is taken for."""
RELATION_MARGIN = 3.0
"""Least distance of the centres of two things in a relation, in pixels; the world keeps 5."""

_PALETTE = np.array([BACKGROUND, *COLOURS.values()], np.float32)
_OTHER = len(_PALETTE)
_NAMES = tuple(COLOURS)
_ENLARGED = 4
"""Enlarging (bilinear) recovers what smoothed edges say of an outline: at 1, small circles are taken for squares."""
_CONNECTED = np.ones((3, 3), bool)  # diagonal neighbours belong together: a triangle's tip is one pixel wide


@dataclass(frozen=True)
class Verdict:
    """How far a picture satisfies a prompt; every criterion lies in [0, 1], and 1 is full satisfaction."""

    objects: float
    """The fraction of groups whose shape is there, in whatever colour."""
    colours: float
    """Of the things with a wanted shape, the fraction that can be given a wanted colour; 0 without such things."""
    counts: float
    """Wanted and found things of each shape: overlap divided by union; unrecognised blobs belong to the union."""
    positions: float | None
    """The fraction of pairs, one of each group, in the right relation; 0 without a pair, None without a relation."""

    @property
    def score(self) -> float:
        """Mean of the criteria that apply."""
        applicable = [value for value in astuple(self) if value is not None]
        return sum(applicable) / len(applicable)

    @property
    def strict(self) -> float:
        """1 when every criterion is 1, else 0: the picture shows exactly what the prompt says."""
        return float(all(value == 1 for value in astuple(self) if value is not None))


def verify(image: np.ndarray, composition: Composition) -> Verdict:
    """Checks one picture, (height, width, 3) uint8 of any size.

    Raises:
        ValueError: the array is no picture.
    """
    return judge(*detect(image), composition)


def judge(things: list[Thing], unrecognised: int, composition: Composition) -> Verdict:
    """The verdict on what `detect` has found."""
    groups = composition.groups
    wanted = Counter([group.shape for group in groups for _ in range(group.count)])
    found = Counter([thing.shape for thing in things])
    named = Counter([group.shape for group in groups])
    return Verdict(
        objects=(named & found).total() / named.total(),
        colours=_colours(things, composition),
        counts=(wanted & found).total() / ((wanted | found).total() + unrecognised),
        positions=_positions(things, composition),
    )


def _colours(things: list[Thing], composition: Composition) -> float:
    right = candidates = 0
    for shape in {group.shape for group in composition.groups}:
        wanted = Counter({group.colour: group.count for group in composition.groups if group.shape == shape})
        found = Counter([thing.colour for thing in things if thing.shape == shape])
        right += (wanted & found).total()
        candidates += min(wanted.total(), found.total())
    return right / candidates if candidates else 0.0


def _positions(things: list[Thing], composition: Composition) -> float | None:
    if composition.second is None:
        return None
    first, second = (
        [thing for thing in things if (thing.shape, thing.colour) == group.kind] for group in composition.groups
    )
    held = [_distance(one, other, composition.relation) >= RELATION_MARGIN for one in first for other in second]
    return float(sum(held) / len(held)) if held else 0.0


def _distance(one: Thing, other: Thing, relation: str | None) -> float:
    """How far one thing lies in the relation's direction from the other; negative on the wrong side."""
    down, right = one.y - other.y, one.x - other.x
    return {"above": -down, "below": down, "left of": -right, "right of": right}[str(relation)]


def detect(image: np.ndarray) -> tuple[list[Thing], int]:
    """The things in a picture, and how many blobs were not recognised as a thing.

    Raises:
        ValueError: the array is no picture.
    """
    height, width, _ = picture(image).shape
    enlarged = Image.fromarray(image).resize((width * _ENLARGED, height * _ENLARGED), Image.Resampling.BILINEAR)
    classes = _classify(np.asarray(enlarged, np.float32))
    things: list[Thing] = []
    unrecognised = 0
    for colour in range(1, _OTHER + 1):
        mask = classes == colour
        if not mask.any():  # as for most colours of most pictures; labelling is what takes the time
            continue
        labels, _ = ndimage.label(mask, structure=_CONNECTED)
        for number, box in enumerate(ndimage.find_objects(labels), start=1):
            blob = labels[box] == number
            if np.count_nonzero(blob) < SPECK * _ENLARGED**2:
                continue
            thing = None
            if colour != _OTHER:
                thing = _recognise(blob, _NAMES[colour - 1], box[0].start, box[1].start)
            if thing is None:
                unrecognised += 1
            else:
                things.append(thing)
    return things, unrecognised


def _classify(pixels: np.ndarray) -> np.ndarray:
    """(height, width) int: 0 for background, 1.. for the colours, `_OTHER` for what is near none of them."""
    flat = pixels.reshape(-1, 3)
    # |pixel - colour|^2 without the |pixel|^2 that all colours share; this is one product of matrices
    distances = np.square(_PALETTE).sum(axis=1, keepdims=True) - 2 * _PALETTE @ flat.T
    limit = COLOUR_TOLERANCE**2 - np.einsum("ij,ij->i", flat, flat)
    return np.argmin([*distances, limit], axis=0).reshape(pixels.shape[:2])


def _recognise(blob: np.ndarray, colour: str, top: int, left: int) -> Thing | None:
    """The thing that a blob is, or None.

    Args:
        blob: (height, width) bool, the blob's bounding box, whose upper left corner is at (`left`, `top`), in enlarged
            pixels.
    """
    area = np.count_nonzero(blob)
    y, x = (centre + 0.5 for centre in ndimage.center_of_mass(blob))
    best, most = None, OVERLAP
    for shape in SHAPES:
        side = math.sqrt(area / _AREA[shape])
        if not SMALLEST - SLACK <= side / _ENLARGED <= LARGEST + SLACK:
            continue
        middle = y - _LOWER[shape] * side
        overlap = _overlap(blob, shape, x, middle, side)
        if overlap >= most:
            size = side / _ENLARGED
            best, most = Thing(shape, colour, (left + x) / _ENLARGED, (top + middle) / _ENLARGED, size), overlap
    return best


def _overlap(blob: np.ndarray, shape: str, x: float, y: float, side: float) -> float:
    """Intersection over union of a blob and a shape, which may stick out of the blob's box."""
    blob = np.pad(blob, _STICKS_OUT)
    u, v = (
        (np.arange(length, dtype=np.float32) + 0.5 - _STICKS_OUT - centre) * (2 / side)
        for length, centre in zip(blob.shape[::-1], (x, y), strict=True)
    )
    expected = inside(shape, u[None, :], v[:, None])
    return np.count_nonzero(blob & expected) / np.count_nonzero(blob | expected)


_AREA = {"circle": math.pi / 4, "square": 1.0, "triangle": 0.5}
"""Of a shape whose bounding box has side 1."""
_LOWER = {"circle": 0.0, "square": 0.0, "triangle": 1 / 6}
"""How far its centre of mass lies below the middle of that box."""
_STICKS_OUT = 4 * _ENLARGED
