"""Where the logits of a window come from: recomputed each round, or behind the exact cache of finished blocks."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

import torch
from torch import Tensor

from models.lean_transformers import DynamicCache
from models.text.attention import visibility
from models.text.policy import TextPolicy
from rollout.text.canvas import Canvas


class Denoiser(Protocol):
    """Predicts the masked positions of one window after another."""

    def predict(self, canvas: Canvas, window: slice, read: Tensor) -> Tensor:
        """(M, V) fp32 logits at `read` (2, M), rows and columns of the canvas: in the window or, if the model is
        bidirectional, anywhere."""
        ...

    def finish(self, canvas: Canvas, window: slice) -> None:
        """The window will not change any more and a later one follows."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Only these rows go on."""
        ...


class RecomputingDenoiser:
    """One forward over everything the window may see: exact for every model."""

    def __init__(self, policy: TextPolicy, counters: Counter) -> None:
        self.policy = policy
        self.counters = counters

    def predict(self, canvas: Canvas, window: slice, read: Tensor) -> Tensor:
        # A bidirectional model sees the masks of later windows too, a block-causal one sees nothing behind its block.
        end = canvas.ids.shape[1] if self.policy.spec.block_length is None else window.stop
        seen = slice(0, end)
        _count(self.counters, canvas, seen, read)
        return self.policy(
            canvas.ids[:, seen], canvas.position[:, seen], canvas.stream[:, seen], canvas.block[:, seen], read
        )

    def finish(self, canvas: Canvas, window: slice) -> None:
        pass

    def keep(self, rows: Tensor) -> None:
        pass


class CachingDenoiser:
    """Keys and values of finished blocks are kept. Exact for block-causal models: a block never sees a later one.

    Each distinct prompt is encoded once and shared by its rows.
    """

    def __init__(self, policy: TextPolicy, counters: Counter, canvas: Canvas, prompt_of_row: Tensor) -> None:
        self.policy = policy
        self.counters = counters
        self.cache = DynamicCache(config=policy.network.config)
        self.length = canvas.window_start
        if self.length > 0:
            self._encode_prompts(canvas, prompt_of_row)

    def _encode_prompts(self, canvas: Canvas, prompt_of_row: Tensor) -> None:
        prompts, row_to_prompt = prompt_of_row.unique(return_inverse=True)
        first_row = torch.stack([(row_to_prompt == i).nonzero()[0, 0] for i in range(len(prompts))])
        prefix = slice(0, self.length)
        stream, block = canvas.stream[first_row, prefix], canvas.block[first_row, prefix]
        visible = visibility(stream, block, stream, block)
        self.policy.forward_cached(
            canvas.ids[first_row, prefix], canvas.position[first_row, prefix], visible, self.cache, None
        )
        self.counters["forwards"] += 1
        self.counters["token_forwards"] += int((stream >= 0).sum())
        self.cache.batch_select_indices(row_to_prompt)

    def predict(self, canvas: Canvas, window: slice, read: Tensor) -> Tensor:
        logits = self._forward(canvas, window, read - torch.tensor([[0], [window.start]], device=read.device))
        self.cache.crop(window.start - window.stop)  # the block is not final: forget its keys and values
        assert logits is not None
        return logits

    def finish(self, canvas: Canvas, window: slice) -> None:
        self._forward(canvas, window, None)

    def keep(self, rows: Tensor) -> None:
        if self.cache.get_seq_length() > 0:
            self.cache.batch_select_indices(rows)
        else:  # cropped to nothing it still has a row for each of the old ones, and would not select among them
            self.cache = DynamicCache(config=self.policy.network.config)

    def _forward(self, canvas: Canvas, window: slice, read: Tensor | None) -> Tensor | None:
        visible = visibility(
            canvas.stream[:, window],
            canvas.block[:, window],
            canvas.stream[:, : window.stop],
            canvas.block[:, : window.stop],
        )
        _count(self.counters, canvas, window, read)
        return self.policy.forward_cached(canvas.ids[:, window], canvas.position[:, window], visible, self.cache, read)


def _count(counters: Counter, canvas: Canvas, columns: slice, read: Tensor | None) -> None:
    counters["forwards"] += 1
    counters["token_forwards"] += int((canvas.stream[:, columns] >= 0).sum())
    counters["head_rows"] += 0 if read is None else read.shape[1]
