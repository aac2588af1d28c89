"""Packing: a recorded or corrupted completion as rows that one forward can score.

A *view* is the canvas with some positions masked, and the masked positions to be scored under it. A bidirectional model
needs one row for each view. A block-causal model needs far less: the views of single blocks are packed behind one clean
copy of the text (`models.text.attention`), each seeing only itself and the clean blocks before it, so that all rounds
of all blocks of a sample are scored in one forward over P + L + (parts x block) tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.text.attention import CLEAN, PADDING
from models.text.spec import TextSpec


@dataclass(frozen=True)
class View:
    """One state of the canvas, or of one block of it."""

    masked: np.ndarray
    """(L,) bool over the whole canvas: shown as MASK in this view."""
    scored: np.ndarray
    """(L,) bool, a subset of `masked`: positions whose logits are read."""
    selected: np.ndarray
    """(L,) bool, a subset of `scored`: positions that were revealed."""
    block: int
    """Attention block that the view is about; 0 for a bidirectional model."""


@dataclass(frozen=True)
class Row:
    """One sequence for the network, and what to read from it."""

    input_ids: np.ndarray
    position: np.ndarray
    stream: np.ndarray
    block: np.ndarray
    """(n,) int64 each"""
    column: np.ndarray
    """(m,) column of each scored token"""
    place: np.ndarray
    """(m,) its canvas position, which is its decision"""
    token: np.ndarray
    """(m,) its final id"""
    selected: np.ndarray
    """(m,) bool"""
    view: np.ndarray
    """(m,) index of its view in the row"""

    def __len__(self) -> int:
        return len(self.input_ids)


def attention_blocks(prompt_length: int, length: int, spec: TextSpec) -> np.ndarray:
    """(L,) attention block of each canvas position: its place on the absolute grid, 0 for a bidirectional model."""
    return (prompt_length + np.arange(length)) // spec.block_length if spec.block_length else np.zeros(length, np.int64)


def pack(prompt: np.ndarray, canvas: np.ndarray, views: list[View], spec: TextSpec) -> list[Row]:
    """Rows that score `views` of one sample; `canvas` (L,) ends where the model's sight ended."""
    if spec.block_length is None:
        return [_full_row(prompt, canvas, view, spec) for view in views]
    return [_packed_row(prompt, canvas, views, spec)] if views else []


def _full_row(prompt: np.ndarray, canvas: np.ndarray, view: View, spec: TextSpec) -> Row:
    ids = np.concatenate([prompt, np.where(view.masked, spec.mask_id, canvas)]).astype(np.int64)
    place = view.scored.nonzero()[0]
    zeros = np.zeros(len(ids), np.int64)
    return Row(
        input_ids=ids,
        position=np.arange(len(ids)),
        stream=zeros + CLEAN,
        block=zeros,
        column=len(prompt) + place,
        place=place,
        token=canvas[place].astype(np.int64),
        selected=view.selected[place],
        view=np.zeros(len(place), np.int64),
    )


def _packed_row(prompt: np.ndarray, canvas: np.ndarray, views: list[View], spec: TextSpec) -> Row:
    length = spec.block_length
    assert length is not None
    text = np.concatenate([prompt, canvas]).astype(np.int64)  # on the absolute grid: its blocks start at position 0
    clean = max(view.block for view in views) * length  # nothing attends to the clean copy of the last block
    position = [np.arange(clean)]
    stream = [np.full(clean, CLEAN)]
    ids = [text[:clean]]
    reads = []
    width = clean
    for index, view in enumerate(views):
        inside = np.arange(view.block * length, min((view.block + 1) * length, len(text)))
        place = inside - len(prompt)  # negative where the block begins inside the prompt
        in_canvas, place = place >= 0, place.clip(min=0)
        masked = in_canvas & view.masked[place]
        ids.append(np.where(masked, spec.mask_id, text[inside]))
        position.append(inside)
        stream.append(np.full(len(inside), 1 + index))
        scored = in_canvas & view.scored[place]
        reads.append((width + scored.nonzero()[0], place[scored], np.full(scored.sum(), index)))
        width += len(inside)
    column, scored_place, view_index = (np.concatenate(parts) for parts in zip(*reads, strict=True))
    positions = np.concatenate(position)
    selected = np.array([views[v].selected[p] for v, p in zip(view_index, scored_place, strict=True)], bool)
    return Row(
        input_ids=np.concatenate(ids),
        position=positions,
        stream=np.concatenate(stream),
        block=positions // length,
        column=column,
        place=scored_place,
        token=canvas[scored_place].astype(np.int64),
        selected=selected,
        view=view_index,
    )


@dataclass(frozen=True)
class RowBatch:
    """Rows padded to one rectangle, R rows of N columns with M reads in all."""

    input_ids: Tensor
    position_ids: Tensor
    stream: Tensor
    block: Tensor
    """(R, N) int64"""
    read: Tensor
    """(2, M) row and column of each scored token"""
    token: Tensor
    selected: Tensor
    """(M,)"""
    view: Tensor
    """(M,) index unique to each (row, view)"""


def collate(rows: list[Row], pad_id: int, device: torch.device) -> RowBatch:
    width = max(len(row) for row in rows)

    def rectangle(name: str, fill: int) -> Tensor:
        filled = np.full((len(rows), width), fill, np.int64)
        for index, row in enumerate(rows):
            filled[index, : len(row)] = getattr(row, name)
        return torch.from_numpy(filled).to(device)

    def flat(arrays: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.concatenate(arrays)).to(device)

    first_view = np.cumsum([0] + [int(row.view.max(initial=-1)) + 1 for row in rows])
    return RowBatch(
        input_ids=rectangle("input_ids", pad_id),
        position_ids=rectangle("position", 0),
        stream=rectangle("stream", PADDING),
        block=rectangle("block", PADDING),
        read=torch.stack(
            [
                flat([np.full(len(row.column), index) for index, row in enumerate(rows)]),
                flat([row.column for row in rows]),
            ]
        ),
        token=flat([row.token for row in rows]),
        selected=flat([row.selected for row in rows]),
        view=flat([row.view + first_view[index] for index, row in enumerate(rows)]),
    )
