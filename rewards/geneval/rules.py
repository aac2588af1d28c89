"""GenEval's rules: from the objects that were found to whether they are what was asked for, without any network."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
RELATIONS = ("left of", "right of", "above", "below")
TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
# fmt: off
OBJECTS = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "computer mouse", "tv remote", "computer keyboard", "cell phone", "microwave", "oven", "toaster",
    "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)
# fmt: on
"""COCO's 80, three of them with a clearer name."""
MOST = 16
"""Objects of one kind that are looked at, the surest."""
NEARNESS = 0.1
"""Of both objects' width and height together: centres that are nearer lie neither left nor above."""


@dataclass(frozen=True)
class Found:
    """An object in a picture."""

    box: tuple[float, float, float, float]
    """Left, top, right and bottom, in pixels."""
    score: float
    """How sure the detector is, 0 to 1."""
    mask: np.ndarray | None = field(default=None, compare=False)
    """(height, width) bool of the picture's pixels that belong to it; None: all in the box."""


Objects = Mapping[str, Sequence[Found]]
ColoursOf = Callable[[Sequence[Found], str], list[str]]
"""The colours of some objects of one kind."""


@dataclass(frozen=True)
class Wanted:
    """One line of `include`: objects of a kind."""

    kind: str
    count: int
    colour: str | None
    position: tuple[str, int] | None
    """Where they are, and which earlier line they are held against."""


def wanted(include: Any) -> list[Wanted]:
    """GenEval's `include` of one prompt.

    Raises:
        ValueError: it asks for what the rules do not know.
    """
    if not isinstance(include, Sequence) or isinstance(include, str) or not include:
        raise ValueError(f"GenEval's `include` is a list of what should be there, not {include!r:.120}")
    return [_line(each, index) for index, each in enumerate(include)]


def limits(exclude: Any) -> list[tuple[str, int]]:
    """GenEval's `exclude` of one prompt: kinds, and the count from which there are too many. Raises ValueError."""
    lines = [_line(each, index) for index, each in enumerate(exclude or [])]
    return [(line.kind, line.count) for line in lines]


def _line(line: Any, index: int) -> Wanted:
    if not isinstance(line, Mapping):
        raise ValueError(f"GenEval's `include` and `exclude` have mappings, not {line!r:.120}")
    kind, count = line.get("class"), line.get("count")
    colour, position = line.get("color"), line.get("position")
    if kind not in OBJECTS:
        raise ValueError(f"GenEval knows no object {kind!r}; it knows COCO's 80, as rewards.geneval.rules.OBJECTS")
    if not isinstance(count, int | np.integer) or not 1 <= count <= MOST:
        raise ValueError(f"GenEval's count of {kind!r} is {count!r}; it must be 1 to {MOST}")
    if colour is not None and colour not in COLOURS:
        raise ValueError(f"GenEval knows no colour {colour!r}; it knows {', '.join(COLOURS)}")
    if position is not None:
        if len(position) != 2 or position[0] not in RELATIONS or position[1] not in range(index):
            raise ValueError(f"GenEval's position is a relation and the number of an earlier line, not {position!r}")
        position = (position[0], int(position[1]))
    return Wanted(kind, int(count), colour, position)


def sure(found: Objects, threshold: float) -> dict[str, list[Found]]:
    """Of every kind those above the threshold, the surest first, at most `MOST`."""
    kept = {}
    for kind, objects in found.items():
        ordered = sorted((each for each in objects if each.score > threshold), key=lambda each: -each.score)
        if ordered:
            kept[kind] = ordered[:MOST]
    return kept


def correct(found: Objects, lines: Sequence[Wanted], too_many: Sequence[tuple[str, int]], colours: ColoursOf) -> bool:
    """GenEval's verdict. More objects than a line asks for are no fault, and the surest of them are looked at; what
    must not be more is excluded."""
    matched: list[Sequence[Found] | None] = []
    for line in lines:
        objects = list(found.get(line.kind, []))[: line.count]
        fits = len(objects) == line.count
        if fits and line.colour is not None:
            fits = colours(objects, line.kind).count(line.colour) >= line.count
        if fits and line.position is not None:
            relation, other = line.position
            fits = _placed(objects, relation, matched[other])
        matched.append(objects if fits else None)
    crowded = any(len(found.get(kind, [])) >= count for kind, count in too_many)
    return None not in matched and not crowded


def shaped(found: Objects, lines: Sequence[Wanted], colours: ColoursOf) -> float:
    """How much of what was asked for is there, 0 to 1: the mean over every count, colour and position that is asked.

    A count is worth 1 - |asked - found| / asked, at least 0; what is asked of objects in a wrong number is worth 0.
    After Flow-GRPO's reward server, whose counts go below zero and whose wrong positions are averaged with a right one.
    """
    worth: list[float] = []
    matched: list[Sequence[Found] | None] = []
    for line in lines:
        objects = list(found.get(line.kind, []))
        worth.append(max(0.0, 1 - abs(line.count - len(objects)) / line.count))
        counted = fits = len(objects) == line.count
        if line.colour is not None:
            right = colours(objects, line.kind).count(line.colour) if counted else 0
            worth.append(right / line.count)
            fits = right == line.count
        if line.position is not None:
            relation, other = line.position
            fits = fits and _placed(objects, relation, matched[other])
            worth.append(float(fits))
        matched.append(objects if fits else None)
    return sum(worth) / len(worth)


def _placed(objects: Sequence[Found], relation: str, others: Sequence[Found] | None) -> bool:
    """Whether each of the objects is there, seen from each of the others."""
    return others is not None and all(relation in relations(one, other) for one in objects for other in others)


def relations(one: Found, other: Found) -> set[str]:
    """Where the first object lies, seen from the second; nothing where their centres are too near to say."""
    ends = [np.array(each.box).reshape(2, 2) for each in (one, other)]
    offset = ends[0].mean(0) - ends[1].mean(0)
    sizes = sum(np.abs(corners[1] - corners[0]) for corners in ends)
    clear = np.maximum(np.abs(offset) - NEARNESS * sizes, 0) * np.sign(offset)
    if np.all(np.abs(clear) < 1e-3):
        return set()
    right, down = clear / math.hypot(*offset)
    held = {"left of": right < -0.5, "right of": right > 0.5, "above": down < -0.5, "below": down > 0.5}
    return {name for name, holds in held.items() if holds}
