"""Recorded trajectories as people read them: texts, and how they were unmasked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rollout.trajectory import TextTrajectory, Trajectory, TrajectoryError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MASKED = "░"
NOTHING = -1
"""In place of the mask's id, which only the model knows."""


def prompt_text(trajectory: TextTrajectory, tokenizer: PreTrainedTokenizerBase) -> str:
    """The prompt with the chat template's marks around it."""
    return _decoded(trajectory.prompt_ids.tolist(), tokenizer)


def texts(trajectory: TextTrajectory, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """(G,) completions, as rewards saw them."""
    return [_decoded(trajectory.completion_ids(i).tolist(), tokenizer) for i in range(trajectory.group_size)]


def text_states(trajectory: Trajectory, sample: int, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """A sample before each round and at its end, `░` where a position is masked, without what lies behind its stop.

    Raises:
        TrajectoryError: it is no text.
    """
    if not isinstance(trajectory, TextTrajectory):
        raise TrajectoryError(f"a {type(trajectory).__name__} has no text to show")
    one = trajectory.take([sample])
    length = int(one.canvas_length[0])
    rounds = int(one.reveal[0, :length].max(initial=0))
    shown = []
    for round_index in range(1, rounds + 2):
        canvas = one.canvas_at(round_index, NOTHING)[0, :length]
        canvas = np.where(one.reveal[0, :length] == 0, NOTHING, canvas)  # never revealed
        if round_index == rounds + 1:
            canvas = canvas[: int(one.stop_length[0])]
        shown.append("".join(MASKED if token == NOTHING else _decoded([token], tokenizer) for token in canvas.tolist()))
    return shown


def _decoded(ids: list[int], tokenizer: Any) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
