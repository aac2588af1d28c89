"""The size of a picture as a JPEG file, the reward that DDPO introduced (arXiv 2305.13301)."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from rewards.picture import picture

JPEG_QUALITY = 95


def jpeg_incompressibility(completions: list[np.ndarray], **_: Any) -> list[float]:
    """Kilobytes (1000 bytes) of each picture as a JPEG file of quality 95: detail and noise pay."""
    return [_jpeg_kilobytes(picture(completion)) for completion in completions]


def jpeg_compressibility(completions: list[np.ndarray], **_: Any) -> list[float]:
    """Minus the kilobytes of each picture as a JPEG file of quality 95: a flat picture is best.

    The file of a picture of 32 x 32 pixels is mostly headers; only differences mean something.
    """
    return [-size for size in jpeg_incompressibility(completions)]


def _jpeg_kilobytes(image: np.ndarray) -> float:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="JPEG", quality=JPEG_QUALITY)
    return file.tell() / 1000
