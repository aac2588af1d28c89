"""Digits, their splits, and the two classifiers."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from rewards.images.digits import WORDS, classifier, digit_images, digit_probability


def test_splits_are_disjoint_complete_and_have_every_digit():
    seen = []
    for split, size in (("train", 900), ("reward", 449), ("held_out", 448)):
        images, digits = digit_images(split)
        assert images.shape == (size, 32, 32, 3)
        assert (images.dtype, digits.dtype) == (np.uint8, np.int64)
        assert (images == images[..., :1]).all()
        assert np.bincount(digits, minlength=10).min() > size / 15
        seen += [image.tobytes() for image in images]
    assert len(seen) == len(set(seen)) == 1797


def test_a_picture_is_the_digit_enlarged():
    from sklearn.datasets import load_digits

    originals = load_digits()
    images, digits = digit_images("held_out")
    for image, digit in zip(images[:50], digits[:50], strict=True):
        cells = image[..., 0].reshape(8, 4, 8, 4).mean(axis=(1, 3)) * (16 / 255)
        nearest = np.abs(originals.images - cells).sum(axis=(1, 2)).argmin()
        assert originals.target[nearest] == digit
        assert np.corrcoef(originals.images[nearest].ravel(), cells.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("measure", ["reward", "held_out"])
def test_classifiers_are_right_on_the_generators_digits(measure):
    started = time.process_time()
    images, digits = digit_images("train")
    classifier.cache_clear()
    values = np.array(digit_probability(completions=list(images), digit=digits.tolist(), measure=measure))
    assert time.process_time() - started < 10
    wrong = np.array(digit_probability(completions=list(images), digit=((digits + 1) % 10).tolist(), measure=measure))
    assert np.mean(values > 0.5) > 0.75
    assert wrong.mean() < 0.05
    scores = np.stack(
        [digit_probability(completions=list(images), digit=[d] * 900, measure=measure) for d in range(10)]
    )
    np.testing.assert_allclose(scores.sum(axis=0), 1)
    assert 0.95 < np.mean(scores.argmax(axis=0) == digits) < 0.975  # the docstring says 96 %


def test_the_classifiers_differ_in_kind_and_data():
    assert type(classifier("reward")) is not type(classifier("held_out"))
    flat = [np.full((32, 32, 3), 120, np.uint8)]
    assert digit_probability(completions=flat, digit=[3]) != digit_probability(
        completions=flat, digit=[3], measure="held_out"
    )


def test_classifiers_are_the_same_in_another_process():
    program = (
        "from rewards.images.digits import *; images, digits = digit_images('train');"
        "print([digit_probability(list(images[:20]), digits[:20].tolist(), m) for m in ('reward', 'held_out')])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    output = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    ).stdout
    images, digits = digit_images("train")
    here = [digit_probability(list(images[:20]), digits[:20].tolist(), measure) for measure in ("reward", "held_out")]
    assert output.strip() == str(here)


def test_pictures_of_other_sizes_are_read():
    images, digits = digit_images("train")
    large = [np.kron(image, np.ones((2, 2, 1), np.uint8)) for image in images[:50]]
    assert digit_probability(completions=large, digit=digits[:50].tolist()) == pytest.approx(
        digit_probability(completions=list(images[:50]), digit=digits[:50].tolist()), abs=0.05
    )


def test_mistakes_are_named():
    image = np.zeros((32, 32, 3), np.uint8)
    assert digit_probability(completions=[], digit=[]) == []
    with pytest.raises(ValueError, match="column `digit`"):
        digit_probability(completions=[image], prompts=["the digit three"])
    with pytest.raises(ValueError, match="no measure 'train': choose reward or held_out"):
        digit_probability(completions=[image], digit=[3], measure="train")
    with pytest.raises(ValueError, match="got a str"):
        digit_probability(completions=["three"], digit=[3])
    with pytest.raises(ValueError, match="no split 'test'"):
        digit_images("test")
    assert WORDS[3] == "three"
