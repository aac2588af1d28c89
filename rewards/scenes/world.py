"""The scene world: what a prompt may ask for, scenes that satisfy it, and their pictures.

A picture is 32 x 32 pixels, RGB, on a grey background, with one to four shapes that do not touch. A prompt names one
group of equal things ("two red circles"), or two groups and where the first lies ("two red circles above a blue
square"). Every prompt is one `Composition`; some pair compositions are held out, to measure generalisation.

Coordinates are in pixels: x to the right, y *down*, (0, 0) is the upper left corner of the picture.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

SIZE = 32
"""Height and width of a picture."""
SHAPES = ("circle", "square", "triangle")
COLOURS = {"red": (230, 45, 45), "green": (40, 190, 60), "blue": (50, 75, 235), "yellow": (240, 215, 40)}
BACKGROUND = (128, 128, 128)
"""Grey lies in the middle of the colours: the pixels of a smoothed edge are nearest to one of its own two colours."""
RELATIONS = ("above", "below", "left of", "right of")
OPPOSITE = {"above": "below", "below": "above", "left of": "right of", "right of": "left of"}
NUMBERS = {1: "a", 2: "two", 3: "three"}
VOCABULARY = (
    *NUMBERS.values(),
    *COLOURS,
    *SHAPES,
    *(f"{shape}s" for shape in SHAPES),
    *("above", "below", "left", "right", "of"),
)
"""Every word of every prompt."""

MOST_THINGS = 4
SMALLEST, LARGEST = 9.0, 11.0
"""Side of a thing's bounding box."""
GAP = 2.0
"""Least distance of two bounding boxes."""
BORDER = 0.5
"""Least distance of a bounding box from the picture's edge."""
RELATION_DISTANCE = 5.0
"""Least distance of the centres of two things, along the relation's axis."""
TRIES = {1: 1, 2: 16, 3: 128, 4: 1024}
"""Arrangements drawn at once, by number of things: one in 600 of four things keeps them apart."""
HELD_OUT_ONE_IN = 8
SINGLE_GROUP_FRACTION = 0.25
"""Of training prompts; there are far fewer of these compositions than of pairs, and they are what pairs are made of."""

Split = Literal["train", "held_out"]


@dataclass(frozen=True)
class Group:
    """Equal things: `count` of one shape and colour."""

    count: int
    shape: str
    colour: str

    @property
    def kind(self) -> tuple[str, str]:
        return self.shape, self.colour

    @property
    def text(self) -> str:
        return f"{NUMBERS[self.count]} {self.colour} {self.shape}{'s' if self.count > 1 else ''}"


@dataclass(frozen=True)
class Composition:
    """What a prompt asks for: one group, or a group that lies in a relation to a second one."""

    first: Group
    relation: str | None = None
    second: Group | None = None

    @property
    def groups(self) -> tuple[Group, ...]:
        return (self.first,) if self.second is None else (self.first, self.second)

    @property
    def text(self) -> str:
        return self.first.text if self.second is None else f"{self.first.text} {self.relation} {self.second.text}"


@dataclass(frozen=True)
class Thing:
    """One shape of a scene; (x, y) is the centre of its bounding box, `size` the box's side."""

    shape: str
    colour: str
    x: float
    y: float
    size: float


@dataclass(frozen=True)
class Scene:
    things: tuple[Thing, ...]


@functools.cache
def compositions(split: Split | None = None) -> tuple[Composition, ...]:
    """Every composition, or those of one split, always in the same order.

    A pair and its reversal ("A above B", "B below A") mean the same and are in the same split. Single groups are never
    held out.
    """
    if split not in (None, "train", "held_out"):
        raise ValueError(f"scenes have no split {split!r}: choose train or held_out")
    kinds = list(itertools.product(SHAPES, COLOURS))
    groups = [Group(count, *kind) for count, kind in itertools.product(NUMBERS, kinds)]
    pairs = [
        Composition(first, relation, second)
        for first, relation, second in itertools.product(groups, RELATIONS, groups)
        if first.kind != second.kind and first.count + second.count <= MOST_THINGS
    ]
    every = [*map(Composition, groups), *pairs]
    return tuple(one for one in every if split is None or _is_held_out(one) == (split == "held_out"))


def _is_held_out(composition: Composition) -> bool:
    if composition.second is None:
        return False
    texts = composition.text, reverse(composition).text
    return hashlib.sha256(min(texts).encode()).digest()[0] % HELD_OUT_ONE_IN == 0


def reverse(composition: Composition) -> Composition:
    """The same meaning with the second group named first."""
    if composition.second is None or composition.relation is None:
        return composition
    return Composition(composition.second, OPPOSITE[composition.relation], composition.first)


def parse(prompt: str) -> Composition:
    """The composition whose text this is.

    Raises:
        ValueError: it is the text of none.
    """
    composition = _by_text().get(" ".join(prompt.lower().split()).rstrip("."))
    if composition is None:
        raise ValueError(
            f"{prompt!r} is no prompt of the scene world; it knows {compositions()[12].text!r}, "
            f"{compositions()[-1].text!r} and the like, of at most {MOST_THINGS} things in two different groups"
        )
    return composition


@functools.cache
def _by_text() -> dict[str, Composition]:
    return {composition.text: composition for composition in compositions()}


def choose(split: Split, seed: int, index: int) -> Composition:
    """Composition `index` of an endless stream of training prompts, or of the held-out ones in a shuffled order.

    Raises:
        IndexError: there are not as many held-out compositions: they are listed, each once.
    """
    pool = compositions(split)
    if split == "held_out":
        return pool[np.random.default_rng(seed).permutation(len(pool))[index]]
    singles = len(NUMBERS) * len(SHAPES) * len(COLOURS)
    generator = np.random.default_rng((seed, index))
    if generator.random() < SINGLE_GROUP_FRACTION:
        return pool[generator.integers(singles)]
    return pool[generator.integers(singles, len(pool))]


def demonstration(composition: Composition, seed: int, index: int, careless: float = 0.0) -> np.ndarray:
    """(32, 32, 3) uint8: a picture for a prompt, a pure function of the arguments.

    Args:
        careless: probability that the picture violates the prompt in one way: captions as the web has them.
    """
    generator = np.random.default_rng((seed, index, 1))  # not the stream that chose the composition
    if generator.random() < careless:
        composition = misread(composition, generator)
    return render(place(composition, generator))


def misread(composition: Composition, generator: np.random.Generator) -> Composition:
    """Another composition, whose scenes violate this one in a single way: a group's colour, shape or count, or the
    relation."""
    kinds = ["colour", "shape", "count"] + ["relation"] * (composition.second is not None)
    return _pick(misreadings(composition, _pick(kinds, generator)), generator)


def misreadings(composition: Composition, aspect: str) -> list[Composition]:
    """Every way to get one aspect wrong: `colour`, `shape` or `count` of one group, or `relation`."""
    if aspect == "relation":
        return [replace(composition, relation=OPPOSITE[composition.relation])] if composition.relation else []
    names = ("first", "second")[: len(composition.groups)]
    values = {"colour": COLOURS, "shape": SHAPES, "count": NUMBERS}[aspect]
    changed = [
        replace(composition, **{name: replace(getattr(composition, name), **{aspect: value})})
        for name, value in itertools.product(names, values)
    ]
    return [other for other in changed if other != composition and other.text in _by_text()]


def _pick(options: list[Any], generator: np.random.Generator) -> Any:
    return options[generator.integers(len(options))]


def place(composition: Composition, generator: np.random.Generator) -> Scene:
    """Places the composition's things at random, by rejection: whole arrangements are drawn until one fits.

    Only which thing goes where along the relation's axis is not left to chance: drawn places are sorted along it, and
    the first group gets the first ones. This has the same distribution as rejecting wrong orders.
    """
    kinds = [group.kind for group in composition.groups for _ in range(group.count)]
    count, tries = len(kinds), TRIES[len(kinds)]
    while True:
        sizes = generator.uniform(SMALLEST, LARGEST, (tries, count))
        low, high = sizes / 2 + BORDER, SIZE - sizes / 2 - BORDER
        centres = low[..., None] + generator.random((tries, count, 2)) * (high - low)[..., None]
        apart = _apart(centres, sizes)
        for places, sides in zip(centres[apart], sizes[apart], strict=True):
            order = _order(composition, places)
            if order is not None:
                arranged = zip(kinds, places[order].tolist(), sides[order].tolist(), strict=True)
                return Scene(tuple(Thing(*kind, x, y, size) for kind, (x, y), size in arranged))


def _order(composition: Composition, centres: np.ndarray) -> np.ndarray | None:
    """Which place (n, 2) each thing gets, first group first; None when the relation would be too close to call."""
    if composition.relation is None:
        return np.arange(len(centres))
    along = centres[:, 0] if composition.relation in ("left of", "right of") else centres[:, 1]
    along = along if composition.relation in ("left of", "above") else -along
    order = np.argsort(along)
    edge = composition.first.count  # where the second group begins
    return order if along[order[edge]] - along[order[edge - 1]] >= RELATION_DISTANCE else None


def _apart(centres: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(tries,) bool: no two bounding boxes are nearer than `GAP`. Centres (tries, n, 2), sizes (tries, n)."""
    fits = np.ones(len(centres), bool)
    for one, other in itertools.combinations(range(sizes.shape[1]), 2):
        distance = np.abs(centres[:, one] - centres[:, other]).max(axis=-1)
        fits &= distance >= (sizes[:, one] + sizes[:, other]) / 2 + GAP
    return fits


_SAMPLES = 4
"""Points per pixel and axis that a smoothed edge is averaged over."""


def render(scene: Scene) -> np.ndarray:
    """(32, 32, 3) uint8."""
    image = np.full((SIZE, SIZE, 3), BACKGROUND, np.float32)
    for thing in scene.things:
        covered = _coverage(thing)[..., None]
        image += covered * (np.array(COLOURS[thing.colour], np.float32) - image)
    return np.rint(image).astype(np.uint8)


def _coverage(thing: Thing) -> np.ndarray:
    """(32, 32) float32: how much of each pixel a thing covers."""
    points = (np.arange(SIZE * _SAMPLES, dtype=np.float32) + 0.5) / _SAMPLES
    u, v = ((points - centre) * (2 / thing.size) for centre in (thing.x, thing.y))
    covered = inside(thing.shape, u[None, :], v[:, None])
    return covered.reshape(SIZE, _SAMPLES, SIZE, _SAMPLES).mean(axis=(1, 3), dtype=np.float32)


def inside(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Which points (u, v) a shape contains; its bounding box is [-1, 1] x [-1, 1]."""
    if shape == "circle":
        return u**2 + v**2 <= 1
    if shape == "square":
        return (np.abs(u) <= 1) & (np.abs(v) <= 1)
    return (np.abs(v) <= 1) & (np.abs(u) <= (v + 1) / 2)  # a triangle with its tip up
