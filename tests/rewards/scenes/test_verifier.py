"""The verifier is exact on rendered scenes, sees every violation, and degrades with the picture."""

import io
import time

import numpy as np
import pytest
from PIL import Image, ImageFilter

from rewards.scenes.verifier import Verdict, detect, judge, verify
from rewards.scenes.world import Scene, Thing, choose, compositions, demonstration, misreadings, parse, place, render

CRITERIA = ("objects", "colours", "counts", "positions")


def scenes(count, seed=0):
    for index in range(count):
        composition = choose("train", seed, index) if index % 4 else choose("held_out", seed, index % 400)
        yield composition, place(composition, np.random.default_rng((seed, index, 7)))


def thing(text, x=0.0, y=0.0):
    colour, shape = text.split()
    return Thing(shape, colour, x, y, 10.0)


def test_every_criterion_is_one_on_rendered_scenes():
    for composition, scene in scenes(1000):
        verdict = verify(render(scene), composition)
        assert verdict.strict == verdict.score == 1.0, (composition.text, scene, verdict)
        assert (verdict.positions is None) == (composition.relation is None)


def test_things_are_found_where_they_are():
    for _, scene in scenes(200, seed=1):
        found, unrecognised = detect(render(scene))
        assert unrecognised == 0
        assert len(found) == len(scene.things)
        for thing in scene.things:
            (match,) = [one for one in found if np.hypot(one.x - thing.x, one.y - thing.y) < 0.7]
            assert (match.shape, match.colour) == (thing.shape, thing.colour)
            assert match.size == pytest.approx(thing.size, abs=0.7)


@pytest.mark.parametrize(
    ("aspect", "criteria"),
    [
        ("colour", {"colours"}),
        ("shape", {"objects", "counts"}),
        ("count", {"counts"}),
        ("relation", {"positions"}),
    ],
)
def test_each_violation_lowers_its_criterion(aspect, criteria):
    generator = np.random.default_rng(0)
    checked = 0
    for composition in compositions()[::24]:
        for other in misreadings(composition, aspect)[:3]:
            verdict = verify(render(place(other, generator)), composition)
            assert verdict.strict == 0
            assert verdict.score < 0.95
            assert any(getattr(verdict, name) < 1 for name in criteria), (composition.text, other.text, verdict)
            if aspect in ("count", "relation"):
                assert all(getattr(verdict, name) in (1, None) for name in CRITERIA if name not in criteria)
            checked += 1
    assert checked > 100


def test_careless_demonstrations_are_wrong_as_often_as_asked():
    indices = range(400)
    chosen = [choose("train", 4, index) for index in indices]
    strict = [verify(demonstration(chosen[i], 4, i, careless=0.45), chosen[i]).strict for i in indices]
    assert 0.45 < np.mean(strict) < 0.65
    assert all(verify(demonstration(chosen[i], 4, i), chosen[i]).strict for i in indices)


@pytest.mark.parametrize(
    ("prompt", "things", "unrecognised", "expected"),
    [
        ("a red circle", ["red circle"], 0, (1, 1, 1, None)),
        ("a red circle", [], 0, (0, 0, 0, None)),
        ("a red circle", ["blue circle"], 0, (1, 0, 1, None)),
        ("a red circle", ["red circle", "blue square"], 0, (1, 1, 1 / 2, None)),
        ("a red circle", ["red circle"], 3, (1, 1, 1 / 4, None)),
        ("three red circles", ["red circle"], 0, (1, 1, 1 / 3, None)),
        ("two red circles", ["red circle", "blue circle"], 0, (1, 1 / 2, 1, None)),
        ("two red circles", ["red circle"] * 3 + ["green circle"], 0, (1, 1, 1 / 2, None)),
        ("a red circle above a blue circle", ["red circle"], 0, (1 / 2, 1, 1 / 2, 0)),
        ("a red circle above a blue circle", ["red circle", "red circle"], 0, (1, 1 / 2, 1, 0)),
        ("a red circle above a blue square", ["blue square"], 0, (1 / 2, 1, 1 / 2, 0)),
    ],
)
def test_criteria_by_hand(prompt, things, unrecognised, expected):
    verdict = judge([thing(text) for text in things], unrecognised, parse(prompt))
    assert verdict == Verdict(*expected)
    applicable = [value for value in expected if value is not None]
    assert verdict.score == pytest.approx(np.mean(applicable))


@pytest.mark.parametrize(
    ("relation", "x", "y", "expected"),
    [
        ("above", 16, 12, 1),
        ("above", 16, 14, 0),
        ("above", 16, 20, 0),
        ("below", 16, 20, 1),
        ("left of", 12, 16, 1),
        ("left of", 20, 16, 0),
        ("right of", 20, 16, 1),
        ("right of", 16, 2, 0),
    ],
)
def test_relations_need_a_margin(relation, x, y, expected):
    found = [thing("red circle", x, y), thing("blue square", 16, 16)]
    assert judge(found, 0, parse(f"a red circle {relation} a blue square")).positions == expected


def test_a_relation_is_the_fraction_of_pairs():
    found = [thing("red circle", 0, 0), thing("red circle", 0, 30), thing("blue square", 16, 16)]
    assert judge(found, 0, parse("two red circles above a blue square")).positions == 1 / 2


def test_things_that_touch_are_not_recognised():
    square = [Thing("square", "red", x, 16.0, 10.0) for x in (10.0, 20.0)]
    verdict = verify(render(Scene(tuple(square))), parse("two red squares"))
    assert (verdict.objects, verdict.counts) == (0, 0)


def test_other_colours_and_sizes_are_no_things():
    image = np.full((32, 32, 3), 128, np.uint8)
    image[8:18, 8:18] = 255
    assert detect(image) == ([], 1)
    image[8:18, 8:18] = (230, 45, 45)
    assert [found.shape for found in detect(image)[0]] == ["square"]
    image[2:30, 2:30] = (230, 45, 45)
    assert detect(image) == ([], 1)
    image[:] = 128
    image[5:7, 5:7] = (230, 45, 45)  # a speck
    assert detect(image) == ([], 0)


def mean_score(change, count=60):
    return np.mean([verify(change(render(scene)), composition).score for composition, scene in scenes(count, seed=2)])


def jpeg(image, quality, subsampling=0):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(file))


def blur(image, radius):
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def noise(image, deviation):
    disturbance = np.random.default_rng(int(image.sum())).normal(0, deviation, image.shape)
    return np.clip(np.rint(image + disturbance), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: jpeg(image, 95),
        lambda image: jpeg(image, 75),
        lambda image: blur(image, 0.5),
        lambda image: blur(image, 1.0),
        lambda image: noise(image, 10),
        lambda image: noise(image, 20),
    ],
)
def test_mild_damage_changes_nothing(change):
    assert mean_score(change) == 1.0


@pytest.mark.parametrize(
    ("damage", "amounts"),
    [(noise, (0, 50, 65, 80)), (blur, (0, 1.5, 2, 3)), (lambda i, q: jpeg(i, q, 2), (95, 60, 30, 5))],
)
def test_growing_damage_lowers_the_score(damage, amounts):
    scores = [mean_score(lambda image, amount=amount: damage(image, amount)) for amount in amounts]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.95
    assert scores[-1] < 0.5
    assert all(np.diff(scores) < -0.02)


@pytest.mark.parametrize("size", [(32, 32), (1, 1), (7, 90), (64, 64)])
def test_noise_and_blank_pictures_of_any_size_score_nothing(size):
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(10)]
    pictures += [np.full((*size, 3), value, np.uint8) for value in (0, 128, 255)]
    for image in pictures:
        for prompt in ("a red circle", "two red circles above a blue square"):
            assert verify(image, parse(prompt)).score < 0.1


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((32, 32, 3)),
        np.zeros((32, 32), np.uint8),
        np.zeros((3, 32, 32), np.uint8),
        np.zeros((0, 0, 3), np.uint8),
        "a red circle",
        None,
    ],
)
def test_what_is_no_picture_is_refused(image):
    with pytest.raises(ValueError, match=r"\(height, width, 3\) of uint8"):
        verify(image, parse("a red circle"))


def test_it_is_quick():
    pictures = [(render(scene), composition) for composition, scene in scenes(50)]
    started = time.process_time()
    for image, composition in pictures:
        verify(image, composition)
    assert (time.process_time() - started) / len(pictures) < 0.006  # 1.5 ms on an idle core
