"""Rewards that any policy can move. Nothing heavy is imported here: each run's scoring process imports this file."""

from __future__ import annotations

from typing import Any

import numpy as np


def redness(completions: list[np.ndarray], **columns: Any) -> list[float]:
    """How much of an image's light is red, 0 to 1."""
    return [float(image[..., 0].mean() / max(image.sum(-1).mean(), 1.0)) for image in completions]


def share_of_ones(completions: list[str], **columns: Any) -> list[float]:
    """Characters of a completion that are below 'A': about half of an untrained policy's, with some spread."""
    return [sum(character < "A" for character in text) / max(len(text), 1) for text in completions]


def logged_share_of_ones(completions: list[str], log_metric: Any, **columns: Any) -> list[float]:
    """The same, and what it tells beside: how many completions it saw, and something that is no number."""
    log_metric("seen", float(len(completions)))
    log_metric("ratio", float("nan"))
    return share_of_ones(completions)


def update_number(completions: list[str], trainer_state: Any, **columns: Any) -> list[float]:
    return [float(trainer_state.global_step)] * len(completions)
