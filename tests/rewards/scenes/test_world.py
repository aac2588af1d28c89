"""The scene world: its language, its splits, its placement, its pictures."""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from rewards.scenes import world
from rewards.scenes.world import (
    Composition,
    Group,
    Scene,
    Thing,
    choose,
    compositions,
    demonstration,
    misread,
    misreadings,
    parse,
    place,
    render,
    reverse,
)

PAIR = parse("two red circles above a blue square")


def test_prompts_read_like_english_and_parse_back():
    assert Composition(Group(2, "circle", "red"), "above", Group(1, "square", "blue")) == PAIR
    assert parse("  Three yellow triangles. ") == Composition(Group(3, "triangle", "yellow"))
    texts = {composition.text for composition in compositions()}
    assert len(texts) == len(compositions()) == 36 + 12 * 11 * 6 * 4
    assert all(parse(composition.text) == composition for composition in compositions())
    assert {word for text in texts for word in text.split()} == set(world.VOCABULARY)


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a red",
        "four red circles",
        "two red circle",
        "a red circle above two red circles",
        "three red circles above two blue squares",
        "a red circle near a blue square",
    ],
)
def test_other_prompts_are_refused(prompt):
    with pytest.raises(ValueError, match="no prompt of the scene world"):
        parse(prompt)


def test_about_an_eighth_of_the_pairs_is_held_out_and_training_has_every_part():
    train, held_out = compositions("train"), compositions("held_out")
    assert Counter(train + held_out) == Counter(compositions())
    assert len(held_out) >= 256
    assert 0.1 < len(held_out) / (len(compositions()) - 36) < 0.15
    assert sum(composition.second is None for composition in train) == 36
    for part in (
        lambda composition: {composition.relation},
        lambda composition: {group.text for group in composition.groups},
        lambda composition: {tuple(group.kind for group in composition.groups)},
    ):
        everywhere = set().union(*(part(composition) for composition in compositions()))
        assert set().union(*(part(composition) for composition in train)) == everywhere


def test_no_held_out_meaning_is_trained_in_other_words():
    meanings = {frozenset((c.text, reverse(c).text)) for c in compositions("train")}
    assert not any(frozenset((c.text, reverse(c).text)) in meanings for c in compositions("held_out"))


def test_the_splits_never_change():
    """Published numbers, and the embedded models, depend on them."""
    texts = "\n".join(composition.text for composition in compositions("held_out"))
    assert hashlib.sha256(texts.encode()).hexdigest()[:16] == "7500cba1908370ed"


def test_an_unknown_split_is_named():
    with pytest.raises(ValueError, match="no split 'test'"):
        compositions("test")


def test_held_out_prompts_are_listed_once_each_and_training_prompts_are_mixed():
    count = len(compositions("held_out"))
    assert {choose("held_out", 3, i) for i in range(count)} == set(compositions("held_out"))
    assert [choose("held_out", 3, i) for i in range(9)] != [choose("held_out", 4, i) for i in range(9)]
    with pytest.raises(IndexError):
        choose("held_out", 3, count)
    drawn = [choose("train", 0, i) for i in range(2000)]
    assert set(drawn) <= set(compositions("train"))
    assert 0.2 < np.mean([composition.second is None for composition in drawn]) < 0.3


def test_placed_things_satisfy_their_composition():
    for index in range(600):
        composition = choose("train", 1, index)
        scene = place(composition, np.random.default_rng(index))
        wanted = [group.kind for group in composition.groups for _ in range(group.count)]
        assert [(thing.shape, thing.colour) for thing in scene.things] == wanted
        for thing in scene.things:
            assert 9 <= thing.size <= 11
            assert thing.size / 2 <= min(thing.x, thing.y)
            assert max(thing.x, thing.y) <= 32 - thing.size / 2
        for one, other in combinations(scene.things, 2):
            gap = max(abs(one.x - other.x), abs(one.y - other.y)) - (one.size + other.size) / 2
            assert gap >= 2 - 1e-9
        if composition.relation:
            first, second = scene.things[: composition.first.count], scene.things[composition.first.count :]
            for one in first:
                for other in second:
                    assert ahead(one, other, composition.relation) >= world.RELATION_DISTANCE


def ahead(one: Thing, other: Thing, relation: str) -> float:
    return {
        "above": other.y - one.y,
        "below": one.y - other.y,
        "left of": other.x - one.x,
        "right of": one.x - other.x,
    }[relation]


@pytest.mark.parametrize(("shape", "area"), [("circle", np.pi / 4), ("square", 1.0), ("triangle", 0.5)])
def test_a_picture_shows_each_shape_in_its_colour_area_and_place(shape, area):
    image = render(Scene((Thing(shape, "blue", 12.3, 20.6, 10.0),))).astype(float)
    assert image.shape == (32, 32, 3)
    covered = (image - world.BACKGROUND) @ (np.array(world.COLOURS["blue"]) - world.BACKGROUND)
    covered /= np.square(np.array(world.COLOURS["blue"]) - world.BACKGROUND).sum()
    assert covered.sum() == pytest.approx(area * 100, rel=0.03)
    rows, columns = np.flatnonzero(covered.max(axis=1) > 0.1), np.flatnonzero(covered.max(axis=0) > 0.1)
    assert (columns[0] + columns[-1] + 1) / 2 == pytest.approx(12.3, abs=0.6)
    assert (rows[0] + rows[-1] + 1) / 2 == pytest.approx(20.6, abs=0.6)
    assert ((covered > 0.02) & (covered < 0.98)).sum() > 5  # edges are smooth


def test_edges_are_nearest_to_one_of_their_own_two_colours():
    palette = np.array([world.BACKGROUND, *world.COLOURS.values()], float)
    for index, colour in enumerate(palette[1:], start=1):
        for share in np.linspace(0, 1, 101):
            distances = np.linalg.norm(palette - (palette[0] + share * (colour - palette[0])), axis=1)
            assert distances.argmin() in (0, index)


def test_demonstrations_are_pure_functions_of_their_arguments():
    images = [demonstration(PAIR, 5, index, careless=0.5) for index in range(20)]
    assert all((demonstration(PAIR, 5, i, careless=0.5) == images[i]).all() for i in reversed(range(20)))
    assert len({image.tobytes() for image in images}) == 20
    assert demonstration(PAIR, 6, 0).tobytes() != demonstration(PAIR, 5, 0).tobytes()


def test_pictures_are_the_same_in_another_process():
    program = (
        "import hashlib; from rewards.scenes.world import *;"
        "images = [demonstration(choose('train', 2, i), 2, i, 0.5).tobytes() for i in range(30)];"
        "print(hashlib.sha256(b''.join(images)).hexdigest())"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1


@pytest.mark.parametrize("aspect", ["colour", "shape", "count", "relation"])
def test_misreadings_are_valid_prompts_that_differ_in_one_aspect(aspect):
    for composition in compositions()[::7]:
        others = misreadings(composition, aspect)
        assert (not others) == (aspect == "relation" and composition.second is None)
        for other in others:
            assert parse(other.text) == other
            differing = [
                name
                for one, two in zip(composition.groups, other.groups, strict=True)
                for name in ("colour", "shape", "count")
                if getattr(one, name) != getattr(two, name)
            ]
            assert differing + ["relation"] * (composition.relation != other.relation) == [aspect]


def test_misreading_uses_every_aspect():
    generator = np.random.default_rng(0)
    drawn = {misread(PAIR, generator) for _ in range(300)}
    assert drawn == {
        other for aspect in ("colour", "shape", "count", "relation") for other in misreadings(PAIR, aspect)
    }
