"""JPEG size as a reward."""

import numpy as np
import pytest

from rewards.images.jpeg import jpeg_compressibility, jpeg_incompressibility

GENERATOR = np.random.default_rng(0)
FLAT = np.full((32, 32, 3), 90, np.uint8)
NOISE = GENERATOR.integers(0, 256, (32, 32, 3), dtype=np.uint8)
SOFT_NOISE = (NOISE // 8 + 90).astype(np.uint8)


def test_detail_costs_bytes():
    flat, soft, noise = jpeg_incompressibility(completions=[FLAT, SOFT_NOISE, NOISE], prompts=["a"] * 3)
    assert 0.4 < flat < soft < noise < 4
    assert jpeg_compressibility(completions=[FLAT, SOFT_NOISE, NOISE]) == [-flat, -soft, -noise]


def test_the_unit_is_a_thousand_bytes_of_quality_95(tmp_path):
    from PIL import Image

    Image.fromarray(NOISE).save(tmp_path / "noise.jpg", quality=95)
    assert jpeg_incompressibility(completions=[NOISE]) == [(tmp_path / "noise.jpg").stat().st_size / 1000]


@pytest.mark.parametrize("function", [jpeg_compressibility, jpeg_incompressibility])
@pytest.mark.parametrize(
    ("completion", "message"),
    [
        ("a text", "got a str: use it with an image policy"),
        ([{"role": "assistant", "content": "a text"}], "got a list"),
        (NOISE / 255, r"not \(32, 32, 3\) of float64"),
        (NOISE[..., 0], r"not \(32, 32\) of uint8"),
        (NOISE[:0], r"not \(0, 32, 3\) of uint8"),
    ],
)
def test_what_is_no_picture_is_refused(function, completion, message):
    with pytest.raises(ValueError, match=message):
        function(completions=[FLAT, completion])
