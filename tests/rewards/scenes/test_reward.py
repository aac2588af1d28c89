"""The verdict as a reward function."""

import time

import numpy as np
import pytest

from rewards.scenes import reward
from rewards.scenes.reward import scene
from rewards.scenes.world import parse, place, render

ABOVE = "two red circles above a blue square"
PICTURE = render(place(parse(ABOVE), np.random.default_rng(0)))


def test_score_criteria_and_strictness():
    pictures = [PICTURE] * 3
    asked = [ABOVE, "two red circles below a blue square", "three red circles"]
    arguments = {"completions": pictures, "composition": asked, "prompts": ["anything"] * 3}
    counts = [1.0, 1.0, 2 / 4]
    assert scene(**arguments) == pytest.approx([1.0, 0.75, np.mean([1, 1, counts[2]])])
    assert scene(**arguments, strict=True) == [1.0, 0.0, 0.0]
    assert scene(**arguments, criterion="counts") == counts
    assert scene(**arguments, criterion="counts", strict=True) == [1.0, 1.0, 0.0]
    assert scene(**arguments, criterion="positions") == [1.0, 0.0, None]
    assert scene(**arguments, criterion="positions", strict=True) == [1.0, 0.0, None]


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="column `composition`"):
        scene(completions=[PICTURE], prompts=[ABOVE])
    with pytest.raises(ValueError, match="no criterion 'count': choose objects, colours, counts, positions"):
        scene(completions=[PICTURE], composition=[ABOVE], criterion="count")
    with pytest.raises(ValueError, match=r"got a str.*image policy"):
        scene(completions=["two red circles"], composition=[ABOVE])
    with pytest.raises(ValueError, match="no prompt of the scene world"):
        scene(completions=[PICTURE], composition=["a dog"])


def test_a_picture_is_looked_at_once_however_many_terms_ask():
    reward._detected.cache_clear()
    pictures = [render(place(parse(ABOVE), np.random.default_rng(index))) for index in range(40)]
    seconds = []
    for criterion in (None, *reward.CRITERIA):
        started = time.process_time()
        scene(completions=[picture.copy() for picture in pictures], composition=[ABOVE] * 40, criterion=criterion)
        seconds.append(time.process_time() - started)
    assert reward._detected.cache_info().misses == 40
    assert sum(seconds[1:]) < seconds[0]


def test_pictures_of_equal_bytes_and_other_shapes_are_not_confused():
    wide, high = np.full((16, 64, 3), 128, np.uint8), np.full((64, 16, 3), 128, np.uint8)
    wide[3:13, 3:13] = (230, 45, 45)
    high.reshape(-1)[:] = wide.reshape(-1)
    asked = ["a red square"] * 2
    assert scene(completions=[wide, high], composition=asked)[0] == 1.0
    assert (
        scene(completions=[high, wide], composition=asked) == scene(completions=[wide, high], composition=asked)[::-1]
    )
    assert scene(completions=[high], composition=asked[:1])[0] < 1.0
