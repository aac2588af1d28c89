"""What of a rollout is kept, by sample and canvas position."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.text.spec import TextSpec
from rollout.branching import Tree
from rollout.options import Remask, SamplerOptions
from rollout.text.canvas import Canvas
from rollout.text.remask import RunningConfidence


@dataclass
class Samples:
    """N finished canvases, aligned at the first position behind each prompt; padding is `pad_id`, reveal 0."""

    canvas_ids: np.ndarray
    """(N, L) int32"""
    canvas_length: np.ndarray
    """(N,) int32"""
    stop_length: np.ndarray
    """(N,) int32"""
    reveal: np.ndarray
    """(N, L) int16"""
    logp: np.ndarray
    """(N, L) fp32"""
    support: np.ndarray | None
    """(N, L, K) int32"""
    rounds: np.ndarray
    """(N,) int32 rounds that each sample took part in."""
    proposed_ids: np.ndarray | None
    """(N, R, L) int32"""
    proposed_logp: np.ndarray | None
    """(N, R, L) fp32"""
    computed: np.ndarray
    """(N,) int32 rounds that the model ran for each sample, without those that an earlier sample shares with it."""
    counters: Counter
    """forwards, token_forwards, head_rows of the whole batch."""


class Record:
    """What the trajectory keeps, by sample and canvas position."""

    def __init__(self, canvas: Canvas, uid: Tensor, spec: TextSpec, options: SamplerOptions) -> None:
        samples, device = len(canvas.row), uid.device
        self.uid = uid
        self.spec = spec
        self.max_new_tokens = options.max_new_tokens
        self.prompt_length = canvas.position.gather(1, canvas.canvas_start[:, None])[:, 0]
        self.canvas_length = canvas.masked.sum(-1)
        length = int(self.canvas_length.max())
        inside = torch.arange(length, device=device) < self.canvas_length[:, None]
        self.ids = torch.where(inside, spec.mask_id, spec.pad_id)
        self.reveal = torch.zeros(samples, length, dtype=torch.int16, device=device)
        self.logp = torch.zeros(samples, length, device=device)
        self.support: dict[int, dict[int, np.ndarray]] = {}
        """Of each sample, by place; empty where nothing is truncated."""
        self.rounds = torch.zeros(samples, dtype=torch.long, device=device)
        self.computed = torch.zeros(samples, dtype=torch.long, device=device)
        self.finished = torch.zeros(samples, dtype=torch.bool, device=device)
        self.confidence: RunningConfidence | None = None
        if options.remask is Remask.running_confidence:
            self.confidence = RunningConfidence(samples, canvas.ids.shape[1], device)
        self.tree: Tree | None = None
        self.carrier = torch.arange(samples, device=device)
        """(N,) the sample that stands for each one: the first leaf of its node."""
        self._stop_ids = torch.tensor(spec.stop_ids, device=device)
        self._proposals: list[tuple[np.ndarray, ...]] = []
        """Of each round: sample, round from 0, place, token and log-probability of each prediction."""

    def propose(self, canvas: Canvas, row: Tensor, column: Tensor, tokens: Tensor, log_prob: Tensor) -> None:
        """Before `add` of the same round."""
        sample, place = canvas.row[row], column - canvas.canvas_start[row]
        found = (sample, self.rounds[sample], place, tokens, log_prob)
        self._proposals.append(tuple(values.cpu().numpy() for values in found))

    def add(
        self,
        canvas: Canvas,
        row: Tensor,
        column: Tensor,
        selected: Tensor,
        tokens: Tensor,
        log_prob: Tensor,
        support: Tensor | None,
    ) -> None:
        took_part = canvas.row[row.unique()]
        self.rounds[took_part] += 1
        sample = canvas.row[row[selected]]
        place = (column - canvas.canvas_start[row])[selected]
        self.ids[sample, place] = tokens[selected]
        self.reveal[sample, place] = self.rounds[sample].to(torch.int16)
        self.logp[sample, place] = log_prob[selected]
        if support is not None:
            kept = support[selected].to(torch.int32).cpu().numpy()
            for each, at, ids in zip(sample.tolist(), place.tolist(), kept, strict=True):
                self.support.setdefault(each, {})[at] = ids[ids >= 0]
        if self.confidence is None:
            self.update_finished(took_part)

    def withdraw(self, canvas: Canvas, again: Tensor) -> None:
        """Tokens that are masked again, (N, W) bool."""
        row, column = again.nonzero(as_tuple=True)
        sample, place = canvas.row[row], column - canvas.canvas_start[row]
        self.ids[sample, place] = self.spec.mask_id
        self.reveal[sample, place] = 0

    def copy(self, source: Tensor, target: Tensor, leaves: Tensor) -> None:
        """Samples `target` (n,) go on where `source` (n,) are, and stand for as many `leaves` (n,), behind each."""
        for values in (self.ids, self.reveal, self.logp, self.rounds, self.finished):
            values[target] = values[source]
        for old, new, count in zip(source.tolist(), target.tolist(), leaves.tolist(), strict=True):
            self.carrier[new : new + count] = new
            if old in self.support and old != new:
                self.support[new] = dict(self.support[old])

    def update_finished(self, samples: Tensor) -> None:
        """A sample is finished when a stop token, or the length limit, has nothing unrevealed before it: what is kept
        cannot change any more. Where tokens are masked again that holds at the end of a window only, and by choice."""
        stop = self.stop_length(samples)
        place = torch.arange(self.ids.shape[1], device=stop.device)
        unrevealed = (self.reveal[samples] == 0) & (place < stop[:, None])
        self.finished[samples] = ~unrevealed.any(-1)

    def stop_length(self, samples: Tensor) -> Tensor:
        """(n,) tokens up to and including the first stop token; the length limit when there is none."""
        is_stop = torch.isin(self.ids[samples], self._stop_ids) & (self.reveal[samples] > 0)
        first = torch.where(is_stop.any(-1), is_stop.int().argmax(-1) + 1, self.max_new_tokens)
        return first.clamp(max=self.max_new_tokens)

    def seen_length(self) -> Tensor:
        """(N,) canvas positions that the model saw: all of them when bidirectional, else through the terminal block."""
        if self.spec.block_length is None:
            return self.canvas_length
        place = torch.arange(self.ids.shape[1], device=self.ids.device)
        last = torch.where(self.reveal > 0, place, 0).amax(-1)
        block = (self.prompt_length + last) // self.spec.block_length
        return (block + 1) * self.spec.block_length - self.prompt_length

    def samples(self, counters: Counter) -> Samples:
        carrier = self.carrier
        seen = self.seen_length()[carrier]
        length = int(seen.max())
        inside = torch.arange(self.ids.shape[1], device=seen.device) < seen[:, None]
        ids = torch.where(inside, self.ids[carrier], self.spec.pad_id)
        return Samples(
            canvas_ids=ids[:, :length].int().cpu().numpy(),
            canvas_length=seen.int().cpu().numpy(),
            stop_length=self.stop_length(carrier).int().cpu().numpy(),
            reveal=self.reveal[carrier, :length].cpu().numpy(),
            logp=self.logp[carrier, :length].cpu().numpy(),
            support=_dense([self.support[sample] for sample in carrier.tolist()], length) if self.support else None,
            rounds=self.rounds[carrier].int().cpu().numpy(),
            proposed_ids=self._dense_proposals(3, length, -1, np.int32),
            proposed_logp=self._dense_proposals(4, length, 0, np.float32),
            computed=self.computed.int().cpu().numpy(),
            counters=counters,
        )

    def _dense_proposals(self, column: int, length: int, fill: int, dtype: type) -> np.ndarray | None:
        """(N, R, L) of one column of the proposals; None if none were recorded."""
        if not self._proposals:
            return None
        dense: np.ndarray = np.full((len(self.uid), int(self.rounds.max()), length), fill, dtype)
        for proposed in self._proposals:
            sample, round_index, place = proposed[:3]
            dense[sample, round_index, place] = proposed[column]
        return dense


def _dense(support: list[dict[int, np.ndarray]], length: int) -> np.ndarray:
    """(N, length, K)"""
    width = max(len(ids) for places in support for ids in places.values())
    dense = np.full((len(support), length, width), -1, np.int32)
    for sample, places in enumerate(support):
        for place, ids in places.items():
            dense[sample, place, : len(ids)] = ids
    return dense
