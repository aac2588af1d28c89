"""The two likelihoods of a masked language model: replay of the recorded trace, and the denoising loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from configs.schema import LikelihoodOptions, Partition
from models.text import TextSpec
from rl.likelihood import ScoredRow
from rl.scores import Scores
from rl.text_rows import Row, View, collate, pack
from rollout.noise import Purpose, uniform
from rollout.options import SamplerOptions
from rollout.reveal import RevealKernel
from rollout.sampler import sampling_window
from rollout.trajectory import TextTrajectory, Trajectory, TrajectoryError, contract


class TextReplay:
    """log pi(o) = sum over parts n of the trace, over tokens k revealed in part n, of log q_k(o_k | canvas at the start
    of part n).

    With one part a round it is the exact log-probability of the recorded decisions (TraceRL with s = 1, CJ-GRPO, DiPO);
    with fewer it is the cheaper surrogate of TraceRL's shrink (arXiv 2509.06949, section 4.2) or of d2's segments, and
    with one part the mean-field estimate of diffu-GRPO (arXiv 2504.12216). A block-causal trace is cut block by block.
    """

    def __init__(
        self, spec: TextSpec, sampler: SamplerOptions, options: LikelihoodOptions, device: torch.device
    ) -> None:
        self.spec = spec
        self.sampler = sampler
        self.options = options
        self.device = device
        self.kernel = RevealKernel(sampler, spec)

    gap_scale = 1.0
    draws = 1
    fresh_noise = False

    @property
    def exact(self) -> bool:
        return self.options.partition is Partition.every_step

    def rows(self, trajectories: Sequence[Trajectory], draw: int) -> list[ScoredRow]:
        rows = []
        for index, trajectory in enumerate(trajectories):
            trajectory = self._checked(trajectory)
            for sample in range(trajectory.group_size):
                rows.extend(self._sample_rows(trajectory, index, sample))
        return rows

    def prepare(self, model: Callable[..., Tensor], rows: list[ScoredRow]) -> None:
        """Nothing: the trace is recorded."""

    def score(self, model: Callable[..., Tensor], rows: list[ScoredRow]) -> Scores:
        return Scores(self.log_prob(model, rows))

    def log_prob(self, model: Callable[..., Tensor], rows: list[ScoredRow]) -> Tensor:
        """(sum of m,) fp32 log-probabilities, rows in order; differentiable in the model's weights."""
        contents: list[tuple[Row, np.ndarray | None]] = [row.content for row in rows]
        batch = collate([row for row, _ in contents], self.spec.pad_id, self.device)
        logits = model(batch.input_ids, batch.position_ids, batch.stream, batch.block, batch.read)
        support = _pad_support([support for _, support in contents], self.device) if self.kernel.truncates else None
        log_prob = self.kernel.log_prob(logits, batch.token, batch.selected, batch.view, support)
        return log_prob[batch.selected]

    def _checked(self, trajectory: Trajectory) -> TextTrajectory:
        if not isinstance(trajectory, TextTrajectory):
            raise TrajectoryError(f"a text learner was given a {type(trajectory).__name__}")
        if trajectory.sampler != contract(self.sampler):
            raise TrajectoryError(
                f"trajectory of prompt {trajectory.prompt_id!r} was sampled under another contract than this replay:\n"
                f"  recorded {trajectory.sampler}\n  replay   {contract(self.sampler)}\n"
                f"Use the run's own configuration, or roll out again."
            )
        return trajectory

    def _sample_rows(self, trajectory: TextTrajectory, index: int, sample: int) -> list[ScoredRow]:
        length = int(trajectory.canvas_length[sample])
        canvas, reveal = trajectory.canvas_ids[sample, :length], trajectory.reveal[sample, :length]
        position = len(trajectory.prompt_ids) + np.arange(length)
        block = position // self.spec.block_length if self.spec.block_length else np.zeros(length, np.int64)
        part = parts(reveal, block, self.options)
        mask = trajectory.mask[sample, :length]
        views = self._views(part, block, mask)
        scored = []
        for row in pack(trajectory.prompt_ids, canvas, views, self.spec):
            place = row.place[row.selected]
            support = None if trajectory.support is None else trajectory.support[sample, row.place]
            ones = np.ones(len(place), np.float32)
            step = block[place] * length + part[place]
            scored.append(ScoredRow((row, support), index, sample, place, ones, step, len(row)))
        return scored

    def _views(self, part: np.ndarray, block: np.ndarray, mask: np.ndarray) -> list[View]:
        never = part.max(initial=0) + 1
        shown_from = np.where(part == 0, never, part)  # never revealed: masked in every view
        window = np.arange(len(part)) // sampling_window(self.sampler, self.spec)
        views = []
        for b, p in sorted({(int(b), int(p)) for b, p in zip(block[mask], part[mask], strict=True)}):
            inside = block == b
            masked = inside & (shown_from >= p)
            selected = inside & (part == p) & mask
            scored = selected
            if self.sampler.order.depends_on_draw:  # the positions that missed the bar count too
                scored = masked & (window == window[selected.argmax()]) if self.spec.block_length is None else masked
            views.append(View(masked, scored, selected, b))
        return views


class TextElbo:
    """Minus the denoising loss: draw a rate t ~ U(0, 1], mask each canvas position with probability t, score the masked
    ones with weight 1 / t (MDLM, arXiv 2406.07524, eq. 10; LLaDA, arXiv 2502.09992, eq. 3). A block-causal model draws
    one rate a block and scores all blocks behind one clean copy (BD3LM, arXiv 2503.09573).

    Rates are stratified over the blocks of a sample, (u + i) / n in random order, which lowers the variance and leaves
    each rate uniform.
    """

    exact = False
    gap_scale = 1.0
    draws = 1
    fresh_noise = True

    def __init__(self, spec: TextSpec, device: torch.device, min_rate: float = 1e-3) -> None:
        self.spec = spec
        self.device = device
        self.min_rate = min_rate
        self.kernel = RevealKernel(SamplerOptions(), spec)

    def rows(self, trajectories: Sequence[Trajectory], draw: int) -> list[ScoredRow]:
        rows = []
        for index, trajectory in enumerate(trajectories):
            assert isinstance(trajectory, TextTrajectory)
            for sample in range(trajectory.group_size):
                rows.extend(self._sample_rows(trajectory, index, sample, draw))
        return rows

    def prepare(self, model: Callable[..., Tensor], rows: list[ScoredRow]) -> None:
        """Nothing: masks do not depend on the policy."""

    def score(self, model: Callable[..., Tensor], rows: list[ScoredRow]) -> Scores:
        return Scores(self.log_prob(model, rows))

    def log_prob(self, model: Callable[..., Tensor], rows: list[ScoredRow]) -> Tensor:
        """(sum of m,) fp32 log-probabilities, rows in order; differentiable in the model's weights."""
        batch = collate([row.content for row in rows], self.spec.pad_id, self.device)
        logits = model(batch.input_ids, batch.position_ids, batch.stream, batch.block, batch.read)
        return self.kernel.log_prob(logits, batch.token, batch.selected, batch.view, None)

    def _sample_rows(self, trajectory: TextTrajectory, index: int, sample: int, draw: int) -> list[ScoredRow]:
        length = int(trajectory.canvas_length[sample])
        trained = trajectory.mask[sample, :length]
        position = len(trajectory.prompt_ids) + np.arange(length)
        block = position // self.spec.block_length if self.spec.block_length else np.zeros(length, np.int64)
        blocks = np.unique(block[trained])
        uid = int(trajectory.uid[sample])
        rate = self._rates(uid, len(blocks), draw)
        noise = _noise(uid, np.arange(length), 2 * draw)
        views, weight = [], np.zeros(length, np.float32)
        for b, t in zip(blocks, rate, strict=True):
            masked = trained & (block == b) & (noise < t)
            weight[masked] = 1.0 / t
            if masked.any():
                views.append(View(masked, masked, masked, int(b)))
        return [
            ScoredRow(row, index, sample, row.place, weight[row.place], block[row.place], len(row))
            for row in pack(trajectory.prompt_ids, trajectory.canvas_ids[sample, :length], views, self.spec)
        ]

    def _rates(self, uid: int, blocks: int, draw: int) -> np.ndarray:
        draws = _noise(uid, np.arange(blocks + 1), 2 * draw + 1)
        order = draws[1:].argsort()
        return self.min_rate + (1 - self.min_rate) * (draws[0] + order) / blocks


def parts(reveal: np.ndarray, block: np.ndarray, options: LikelihoodOptions) -> np.ndarray:
    """(L,) 1-based part of each revealed position, counted within its block; 0 where never revealed.

    Args:
        reveal: (L,) 1-based round, 0 never.
        block: (L,) attention block; one value everywhere for a bidirectional model.
    """
    part = np.zeros(len(reveal), np.int64)
    for b in np.unique(block):
        inside = (block == b) & (reveal > 0)
        rounds, rank = np.unique(reveal[inside], return_inverse=True)
        if options.partition is Partition.every_step:
            part[inside] = rank + 1
        elif options.partition is Partition.shrink:
            part[inside] = rank // options.shrink + 1
        elif options.partition is Partition.segments:
            part[inside] = rank * options.segments // max(len(rounds), 1) + 1
        else:
            part[inside] = 1
    return part


def _noise(uid: int, position: np.ndarray, counter: int) -> np.ndarray:
    position_tensor = torch.from_numpy(position)
    return uniform(
        torch.tensor(uid), position_tensor, torch.full_like(position_tensor, counter), Purpose.CORRUPTION
    ).numpy()


def _pad_support(supports: list[np.ndarray | None], device: torch.device) -> Tensor:
    present = [support for support in supports if support is not None]
    if len(present) < len(supports):
        raise TrajectoryError("the sampler truncates (top-k or top-p), but a trajectory carries no support")
    width = max(support.shape[1] for support in present)
    padded = [np.pad(s, ((0, 0), (0, width - s.shape[1])), constant_values=-1) for s in present]
    return torch.from_numpy(np.concatenate(padded).astype(np.int64)).to(device)
