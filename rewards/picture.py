"""What a picture is, to whoever scores one."""

from __future__ import annotations

from typing import Any

import numpy as np


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


def batches(reward: str, count: int, size: int) -> list[slice]:
    """Of so many pictures at a time. Raises ValueError where `args.batch` is none."""
    if size < 1:
        raise ValueError(f"the reward `{reward}` has batch={size}; it needs at least 1")
    return [slice(first, first + size) for first in range(0, count, size)]
