"""The verdict on a scene as a reward."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from rewards.picture import picture
from rewards.scenes.verifier import Verdict, detect, judge
from rewards.scenes.world import Thing, parse

CRITERIA = tuple(Verdict.__dataclass_fields__)


def scene(
    completions: list[np.ndarray],
    composition: list[str] | None = None,
    strict: bool = False,
    criterion: str | None = None,
    **_: Any,
) -> list[float | None]:
    """How far each picture shows what was asked for, 0 to 1.

    Args:
        composition: N prompts of the scene world, such as "two red circles above a blue square".
        strict: pay 1 for a picture of exactly that and 0 for any other.
        criterion: `objects`, `colours`, `counts` or `positions` alone; None is the mean of those that apply.

    Returns:
        N scores; None where the criterion does not apply: positions of a prompt without a relation.
    """
    if composition is None:
        raise ValueError("the reward `scene` needs a dataset column `composition`: what each picture should show")
    if criterion not in (None, *CRITERIA):
        raise ValueError(f"the reward `scene` has no criterion {criterion!r}: choose {', '.join(CRITERIA)}, or null")
    verdicts = [
        judge(*_detected(image.tobytes(), image.shape), parse(text))
        for image, text in zip(map(picture, completions), composition, strict=True)
    ]
    values = [verdict.score if criterion is None else getattr(verdict, criterion) for verdict in verdicts]
    return [value if value is None or not strict else float(value == 1) for value in values]


@functools.lru_cache(maxsize=4096)
def _detected(pixels: bytes, shape: tuple[int, ...]) -> tuple[list[Thing], int]:
    """What is in a picture; several terms ask about the same ones, batch after batch."""
    return detect(np.frombuffer(pixels, np.uint8).reshape(shape))
