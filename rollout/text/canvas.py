"""The token canvas of a batch: prompts and canvases of different lengths on one rectangle, none seeing another.

Rows are shifted right so that the sampling windows of all rows fall on the same columns: for a block-causal model the
windows are the blocks of the *absolute* grid (the first one may begin with the end of the prompt), for a bidirectional
model they start where the prompt ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.text.attention import CLEAN, PADDING, block_of
from models.text.spec import TextSpec


@dataclass
class Canvas:
    """N rows of W columns. `prompt_start <= column < canvas_start` is the prompt, `< canvas_end` the canvas."""

    ids: Tensor
    """(N, W) int64"""
    masked: Tensor
    """(N, W) bool: not revealed yet."""
    position: Tensor
    """(N, W) int64 absolute position, 0 in padding."""
    stream: Tensor
    block: Tensor
    """(N, W) see `models.text.attention`."""
    canvas_start: Tensor
    """(N,) column of the first canvas position."""
    row: Tensor
    """(N,) index of the sample in the request; rows leave the canvas when they are finished."""
    window_start: int
    window_length: int

    @property
    def windows(self) -> int:
        return -(-(self.ids.shape[1] - self.window_start) // self.window_length)

    def window(self, index: int) -> slice:
        start = self.window_start + index * self.window_length
        return slice(start, min(start + self.window_length, self.ids.shape[1]))

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        for name in ("ids", "masked", "position", "stream", "block", "canvas_start", "row"):
            setattr(self, name, getattr(self, name)[rows])


def lay_out(
    prompts: list[np.ndarray], spec: TextSpec, max_new_tokens: int, window_length: int, device: torch.device
) -> Canvas:
    """Masked canvases behind the prompts (one row each)."""
    prompt_length = torch.tensor([len(prompt) for prompt in prompts], device=device)
    if spec.block_length is None:
        before_window = prompt_length
        canvas_length = torch.full_like(prompt_length, max_new_tokens)
    else:  # whole blocks of the prompt, then windows on the absolute grid, the last of them kept whole
        before_window = prompt_length // window_length * window_length
        end = -(-(prompt_length + max_new_tokens) // window_length) * window_length
        canvas_length = end - prompt_length
    window_start = int(before_window.max())
    prompt_start = window_start - before_window  # (N,)
    canvas_start = prompt_start + prompt_length
    canvas_end = canvas_start + canvas_length
    column = torch.arange(int(canvas_end.max()), device=device)[None]  # (1, W)
    inside = (column >= prompt_start[:, None]) & (column < canvas_end[:, None])
    masked = (column >= canvas_start[:, None]) & inside
    position = torch.where(inside, column - prompt_start[:, None], 0)
    ids = torch.where(masked, spec.mask_id, spec.pad_id)
    for row, prompt in enumerate(prompts):
        start = int(prompt_start[row])
        ids[row, start : start + len(prompt)] = torch.as_tensor(prompt, dtype=torch.long, device=device)
    return Canvas(
        ids=ids,
        masked=masked,
        position=position,
        stream=torch.where(inside, CLEAN, PADDING),
        block=torch.where(inside, block_of(position, spec.block_length), PADDING),
        canvas_start=canvas_start,
        row=torch.arange(len(prompts), device=device),
        window_start=window_start,
        window_length=window_length,
    )
