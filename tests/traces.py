"""Trajectories of texts that are written down rather than generated."""

from __future__ import annotations

from typing import Any

import numpy as np

from rollout.options import SamplerOptions
from rollout.trajectory import TextTrajectory, contract


def text_trajectory(
    prompt_ids: np.ndarray,
    canvas_ids: np.ndarray,
    reveal: np.ndarray,
    options: SamplerOptions | None = None,
    **fields: Any,
) -> TextTrajectory:
    """A group that is kept to the end of its canvases, and of which everything revealed is trained.

    Args:
        prompt_ids: (P,)
        canvas_ids: (G, L)
        reveal: (G, L) rounds.
        fields: of the trajectory that are to be others; log-probabilities are 0.
    """
    samples, length = canvas_ids.shape
    values: dict[str, Any] = {
        "ticket": 0,
        "update": 0,
        "version": 0,
        "seed": 0,
        "prompt_id": "p",
        "sampler": "{}" if options is None else contract(options),
        "uid": np.arange(samples),
        "logp": np.zeros((samples, length), np.float32),
        "mask": reveal > 0,
        "prompt_ids": prompt_ids,
        "canvas_ids": canvas_ids,
        "canvas_length": np.full(samples, length, np.int32),
        "stop_length": np.full(samples, length, np.int32),
        "reveal": reveal,
    }
    return TextTrajectory(**(values | fields))
