"""The rewarded engine reads rendered words, and says so of nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from rewards.images.digits import digit_images
from rewards.reading.rapid import engine, ocr, read
from tests.rewards.reading.drawing import FONTS, drawn, prompt, shown, words


def scores(chosen: list[str], pictures: list[np.ndarray]) -> list[float]:
    found = ocr(completions=pictures, prompts=[prompt(word) for word in chosen])
    return [score for score in found if score is not None]


def test_it_reads_rendered_words():
    """In seven fonts; `test_it_reads_five_hundred_words` is this in full."""
    assert scores(*shown(25)) == [1.0] * 25


@pytest.mark.slow
def test_it_reads_five_hundred_words():
    found = scores(*shown(500))
    assert len(found) == 500
    assert sum(score == 1.0 for score in found) >= 490


def test_each_picture_is_held_against_its_own_prompt():
    chosen, pictures = shown(3)
    shifted = ocr(completions=pictures, prompts=[prompt(word) for word in chosen[1:] + chosen[:1]])
    assert max(score for score in shifted if score is not None) < 0.7
    assert ocr(completions=pictures[:2], prompts=["no text", prompt(chosen[1])]) == [None, 1.0]
    assert ocr(completions=[], prompts=[]) == []


def test_text_beside_the_text_costs_only_where_it_should():
    """The hack of a reward that pays for a picture full of words."""
    both = np.concatenate([drawn("harbor", 160, 30, seed=3), drawn("station", 160, 30, seed=3)], axis=1)
    assert ocr(completions=[both], prompts=[prompt("station")]) == [1.0]
    assert ocr(completions=[both], prompts=[prompt("station")], whole=True)[0] == pytest.approx(1 - 6 / 7)


def test_how_small_a_text_can_be():
    """Letters an eighth of the picture high: read at 128 pixels, never at 32, as docs/picture_rewards.md says."""

    def mean(side: int) -> float:
        chosen = words(5)
        pictures = [drawn(word, side, side / 8, FONTS[0], seed=7, centred=True) for word in chosen]
        return float(np.mean(scores(chosen, pictures)))

    assert mean(128) == 1.0
    assert 0.2 < mean(48) < 0.9  # some letters: there is something to learn from before a word is right
    assert mean(32) < 0.1


@pytest.mark.slow
def test_a_policy_of_larger_pictures_learns_to_be_read():
    """REINFORCE on how a word is drawn at 96 pixels, its letters' height and contrast: unreadable at first."""
    random = np.random.default_rng(0)
    mean = np.array([0.25, 0.25])  # shares of the largest letters, and of full contrast
    history = []
    for update in range(12):
        draws = mean + 0.2 * random.standard_normal((12, 2))
        pictures = [_sketch(np.clip(draw, 0.05, 1.0), update) for draw in draws]
        rewards = np.array(scores(["garden"] * len(draws), pictures))
        history.append(rewards.mean())
        mean = mean + 0.5 * ((rewards - rewards.mean())[:, None] * (draws - mean)).mean(0) / 0.2
    assert np.mean(history[:2]) < 0.5
    assert np.mean(history[-2:]) > 0.85


def _sketch(draw: np.ndarray, seed: int) -> np.ndarray:
    size, contrast = draw
    word = drawn("garden", 96, 4 + 20 * size, seed=11, centred=True).astype(float)
    noise = 40 * np.random.default_rng(seed).standard_normal(word.shape)
    return np.clip(128 + contrast * (word - 128) + (1 - contrast) * noise, 0, 255).astype(np.uint8)


def test_the_embedded_model_of_digits_draws_nothing_that_can_be_read():
    """Not even what it learned from: see "The embedded models draw 32 pixels" in docs/picture_rewards.md."""
    assert [read(image) for image in digit_images("train")[0][:40]] == [""] * 40


def test_a_picture_without_text_says_nothing():
    assert read(np.full((64, 64, 3), 200, np.uint8)) == ""


def test_it_uses_one_core_and_no_download():
    engine(1)
    session = engine(1).text_rec.session.session
    assert session.get_session_options().intra_op_num_threads == 1
    with pytest.raises(ValueError, match="threads=0; it needs at least 1"):
        ocr(completions=[], prompts=[], threads=0)


def test_what_is_no_picture_is_refused():
    with pytest.raises(ValueError, match="got a str"):
        ocr(completions=["a text"], prompts=[prompt("word")])
