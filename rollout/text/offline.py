"""Answers out of a data set as a trajectory: what offline training learns from has the shape of what rollouts
produce."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.text.spec import TextSpec
from rollout.trajectory import NO_SAMPLER, TextTrajectory


def offline_group(
    problem_id: str,
    prompt: np.ndarray,
    responses: Sequence[np.ndarray],
    spec: TextSpec,
    max_new_tokens: int,
    uids: np.ndarray,
    seed: int,
    update: int,
) -> TextTrajectory:
    """A group of finished canvases, every position of which is trained on.

    Behind a response its canvas is filled with the stop token: through the response's last block for a block-causal
    model, whose generation ends there, and through the whole canvas for a bidirectional one (LLaDA, arXiv 2502.09992,
    section 2.3), which learns from it where its answer ends. A shorter canvas is padded to the group's longest, as in a
    rollout.

    Args:
        responses: (R,) ids each, that end with a stop token.
        uids: (G,) int64 key of each response's corruption noise.
    """
    canvases = [_canvas(response, len(prompt), spec, max_new_tokens) for response in responses]
    length = np.array([len(canvas) for canvas in canvases], np.int32)
    seen = np.arange(length.max()) < length[:, None]  # (G, L)
    canvas_ids = np.full(seen.shape, spec.pad_id, np.int32)
    canvas_ids[seen] = np.concatenate(canvases)
    return TextTrajectory(
        ticket=0,
        update=update,
        version=update,
        seed=seed,
        prompt_id=problem_id,
        sampler=NO_SAMPLER,
        uid=uids,
        logp=np.zeros(seen.shape, np.float32),
        mask=seen,
        prompt_ids=prompt.astype(np.int32),
        canvas_ids=canvas_ids,
        canvas_length=length,
        stop_length=np.array([len(response) for response in responses], np.int32),
        reveal=seen.astype(np.int16),
    )


def _canvas(response: np.ndarray, prompt_length: int, spec: TextSpec, max_new_tokens: int) -> np.ndarray:
    if spec.block_length is None:
        length = max(max_new_tokens, len(response))
    else:
        length = -(-(prompt_length + len(response)) // spec.block_length) * spec.block_length - prompt_length
    canvas = np.full(length, spec.stop_ids[0], np.int32)
    canvas[: len(response)] = response
    return canvas
