"""A demonstration as a trajectory: what supervised training learns from has the shape of what rollouts produce."""

from __future__ import annotations

import numpy as np

from models.text import TextSpec
from rollout.trajectory import TextTrajectory


def demonstration(
    problem_id: str,
    prompt: np.ndarray,
    response: np.ndarray,
    spec: TextSpec,
    max_new_tokens: int,
    seed: int,
    update: int,
) -> TextTrajectory:
    """A group of one finished canvas, every position of which is trained on.

    Behind the response the canvas is filled with the stop token: through the response's last block for a block-causal
    model, whose generation ends there, and through the whole canvas for a bidirectional one (LLaDA, arXiv 2502.09992,
    section 2.3), which learns from it where its answer ends.

    Args:
        response: (R,) ids that end with a stop token.
        seed: key of the corruption noise.
    """
    if spec.block_length is None:
        length = max(max_new_tokens, len(response))
    else:
        length = -(-(len(prompt) + len(response)) // spec.block_length) * spec.block_length - len(prompt)
    canvas = np.full((1, length), spec.stop_ids[0], np.int32)
    canvas[0, : len(response)] = response
    return TextTrajectory(
        ticket=0,
        update=update,
        version=update,
        seed=seed,
        prompt_id=problem_id,
        sampler="demonstration",
        uid=np.array([seed], np.int64),
        logp=np.zeros((1, length), np.float32),
        mask=np.ones((1, length), bool),
        prompt_ids=prompt.astype(np.int32),
        canvas_ids=canvas,
        canvas_length=np.array([length], np.int32),
        stop_length=np.array([len(response)], np.int32),
        reveal=np.ones((1, length), np.int16),
    )
