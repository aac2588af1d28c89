"""Rewards of any picture: its size as a JPEG file, the reward that DDPO introduced (arXiv 2305.13301)."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

JPEG_QUALITY = 95


def picture(completion: Any) -> np.ndarray:
    """The completion itself, once it is known to be a picture: (height, width, 3) uint8.

    Raises:
        ValueError: it is something else, such as the text of a language model.
    """
    if isinstance(completion, np.ndarray) and completion.dtype == np.uint8 and completion.ndim == 3:
        height, width, channels = completion.shape
        if height and width and channels == 3:
            return completion
    if isinstance(completion, np.ndarray):
        raise ValueError(
            f"a picture is an array (height, width, 3) of uint8, not {completion.shape} of {completion.dtype}"
        )
    raise ValueError(
        f"this reward scores pictures, arrays (height, width, 3) of uint8, and got a {type(completion).__name__}: use "
        "it with an image policy, or choose a reward of texts"
    )


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
