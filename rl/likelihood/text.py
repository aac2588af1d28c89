"""The two likelihoods of a masked language model: replay of the recorded trace, and the denoising loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from configs.algorithm_options import LikelihoodOptions, Partition
from models.text.spec import TextSpec
from rl.algorithm.scored_rows import ScoredRow
from rl.algorithm.scores import Scores
from rl.likelihood.masks import MaskSampler, hidden_tokens, sampled
from rl.likelihood.partitions import parts
from rl.likelihood.text_rows import Row, View, attention_blocks, collate, pack
from rollout.branching import Tree
from rollout.options import Remask, SamplerOptions
from rollout.text.reveal import RevealKernel
from rollout.text.sampler import sampling_window
from rollout.trajectory import TextTrajectory, Trajectory, TrajectoryError, contract


class _OfText:
    """Part of both: which of the recorded decisions are scored."""

    options: LikelihoodOptions

    def decisions_of(self, trajectory: Trajectory) -> Trajectory:
        if not self.options.until_stop:
            return trajectory
        assert isinstance(trajectory, TextTrajectory)
        kept = np.arange(trajectory.mask.shape[1]) < trajectory.stop_length[:, None]  # (G, D)
        return replace(trajectory, mask=trajectory.mask & kept)


class TextReplay(_OfText):
    """log pi(o) = sum over parts n of the trace, over tokens k revealed in part n, of log q_k(o_k | canvas at the start
    of part n).

    With one part a round it is the exact log-probability of the recorded decisions (TraceRL with s = 1, CJ-GRPO, DiPO);
    with fewer it is the cheaper surrogate of TraceRL's shrink (arXiv 2509.06949, section 4.2) or of d2's segments, and
    with one part the mean-field estimate of diffu-GRPO (arXiv 2504.12216). Left to right it is the autoregressive
    factorisation of the text, whatever the recorded order (JustGRPO). Cut at the forks of a tree, it scores a branch
    under the canvas of its parent (d-TreeRPO, arXiv 2512.09675). A block-causal trace is cut block by block.

    `block_length` scores a trace of small attention blocks under larger ones, in which rounds of several small blocks
    follow each other: TraceRL's way to adapt a model to larger blocks, a curriculum in T* (arXiv 2601.11214). Another
    distribution generated, so it is a surrogate, with ratios to the larger blocks' policy before the update.

    `sampled_parts` = K of the N (block, part) pairs are scored with importance N / K, every subset equally likely, so
    that sums over decisions keep their mean (AGRPO, arXiv 2510.04019).
    """

    def __init__(
        self,
        spec: TextSpec,
        sampler: SamplerOptions,
        options: LikelihoodOptions,
        device: torch.device,
        tree: Callable[[int], Tree | None] = lambda update: None,
    ) -> None:
        """
        Args:
            tree: of an update, for partition=forks.
        """
        self.tree = tree
        self.spec = spec if options.block_length is None else replace(spec, block_length=options.block_length)
        self.sampler = sampler
        self.options = options
        self.device = device
        self.kernel = RevealKernel(sampler, spec)
        if sampler.remask is not Remask.none:
            raise TrajectoryError(
                f"remask={sampler.remask.name} may reveal a position more than once, and a replay scores each position "
                f"once; use likelihood.kind=proposals, which scores every time, or elbo"
            )

    gap_scale = 1.0
    draws = 1
    overlapping = False

    @property
    def fresh_noise(self) -> bool:
        return self.options.sampled_parts is not None or self.options.prompt_masking > 0

    @property
    def exact(self) -> bool:
        return self.options.partition is Partition.every_step and self.options.block_length is None

    def rows(self, trajectories: Sequence[Trajectory], draw: int) -> list[ScoredRow]:
        rows = []
        for index, trajectory in enumerate(trajectories):
            trajectory = check_contract(trajectory, self.sampler)
            for sample in range(trajectory.group_size):
                rows.extend(self._sample_rows(trajectory, index, sample, draw))
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

    def values(self, model: Callable[..., Tensor], rows: list[ScoredRow]) -> Tensor:
        """(sum of m,) fp32 values of `models.text.value.text_value`, read where each token is still masked."""
        batch = collate([row.content[0] for row in rows], self.spec.pad_id, self.device)
        value = model(batch.input_ids, batch.position_ids, batch.stream, batch.block, batch.read)[:, 0]
        return value[batch.selected]

    def _sample_rows(self, trajectory: TextTrajectory, index: int, sample: int, draw: int) -> list[ScoredRow]:
        length, uid = int(trajectory.canvas_length[sample]), int(trajectory.uid[sample])
        prompt = trajectory.prompt_ids
        behind = self._behind(len(prompt) + length)
        canvas = np.pad(trajectory.canvas_ids[sample, :length], (0, behind), constant_values=self.spec.mask_id)
        reveal, mask = (np.pad(values[sample, :length], (0, behind)) for values in (trajectory.reveal, trajectory.mask))
        length += behind
        block = attention_blocks(len(prompt), length, self.spec)
        tree = self.tree(trajectory.update)
        part = parts(reveal, block, self.options, () if tree is None else tree.forks)
        views = self._views(part, block, mask)
        importance = 1.0
        wanted = self.options.sampled_parts
        if wanted is not None and wanted < len(views):
            importance = len(views) / wanted
            views = [views[i] for i in sampled(uid, len(views), wanted, draw)]
        (hidden,) = hidden_tokens(uid, len(prompt), self.options.prompt_masking, np.array([draw]))
        scored = []
        for row in pack(np.where(hidden, self.spec.mask_id, prompt), canvas, views, self.spec):
            place = row.place[row.selected]
            support = None if trajectory.support is None else trajectory.support[sample, row.place]
            ones = np.ones(len(place), np.float32)
            step = block[place] * length + part[place]
            content = row, support
            scored.append(ScoredRow(content, index, sample, place, ones, step, len(row), importance, state=part[place]))
        return scored

    def _behind(self, end: int) -> int:
        """Positions of the last larger block behind the last one that generated; nothing was revealed there."""
        return 0 if self.options.block_length is None else -end % self.options.block_length

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


class TextElbo(_OfText):
    """Minus the denoising loss of the finished text: hide some of its trained positions, score them with the weight of
    their mask (`rl.likelihood.masks` says which laws there are). A block-causal model draws one rate a block and
    scores the blocks of a draw behind one clean copy (BD3LM, arXiv 2503.09573).

    Everything else, what was recorded behind the stop included, stays as it was sampled, or is hidden with the rest.
    """

    exact = False
    gap_scale = 1.0
    fresh_noise = True

    def __init__(self, spec: TextSpec, options: LikelihoodOptions, epochs: int, device: torch.device) -> None:
        """
        Args:
            epochs: passes over an update's samples, over which a rising rate rises.
        """
        self.spec = spec
        self.options = options
        self.draws = options.draws
        self.overlapping = options.draws > 1 or options.full_view > 0
        self.masks = MaskSampler(options, epochs)
        self.device = device
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
        canvas, prompt = trajectory.canvas_ids[sample, :length], trajectory.prompt_ids
        block = attention_blocks(len(prompt), length, self.spec)
        scored = []
        for text in self.masks.draw(
            trajectory.mask[sample, :length], block, len(prompt), int(trajectory.uid[sample]), draw
        ):
            shown = np.where(text.hidden_prompt, self.spec.mask_id, prompt)
            for first_view, row in enumerate(pack(shown, canvas, text.views, self.spec)):
                coefficient = text.coefficient[first_view + row.view, row.place]
                step = text.number * (int(block[-1]) + 1) + block[row.place]
                scored.append(ScoredRow(row, index, sample, row.place, coefficient, step, len(row), text.importance))
        return scored


def check_contract(trajectory: Trajectory, sampler: SamplerOptions) -> TextTrajectory:
    """
    Raises:
        TrajectoryError: it was sampled in another way than the one whose law is to be scored.
    """
    if not isinstance(trajectory, TextTrajectory):
        raise TrajectoryError(f"a text learner was given a {type(trajectory).__name__}")
    if trajectory.sampler != contract(sampler):
        raise TrajectoryError(
            f"trajectory of prompt {trajectory.prompt_id!r} was sampled under another contract than this replay:\n"
            f"  recorded {trajectory.sampler}\n  replay   {contract(sampler)}\n"
            f"Use the run's own configuration, or roll out again."
        )
    return trajectory


def _pad_support(supports: list[np.ndarray | None], device: torch.device) -> Tensor:
    present = [support for support in supports if support is not None]
    if len(present) < len(supports):
        raise TrajectoryError("the sampler truncates (top-k or top-p), but a trajectory carries no support")
    width = max(support.shape[1] for support in present)
    padded = [np.pad(s, ((0, 0), (0, width - s.shape[1])), constant_values=-1) for s in present]
    return torch.from_numpy(np.concatenate(padded).astype(np.int64)).to(device)
