"""The exact sampler of masked and block-diffusion language models: window by window, round by round, recorded."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch
from torch import Tensor

from models.text.policy import TextPolicy
from models.text.spec import TextSpec
from rollout.branching import Tree
from rollout.options import Cache, Remask, SamplerOptions
from rollout.text.canvas import Canvas, lay_out
from rollout.text.denoiser import CachingDenoiser, Denoiser, RecomputingDenoiser
from rollout.text.record import Record, Samples
from rollout.text.reveal import Draw, RevealKernel

NOT_FINITE = (
    "the model's logits are not finite, so no token can be drawn. Before the first update: the checkpoint's weights "
    "are damaged, or overflow in model.precision. Later: training has diverged; go on from an earlier checkpoint with "
    "a lower algorithm.optimizer.learning_rate"
)


class SamplingError(RuntimeError):
    """The policy yields no distribution to sample from."""


class Sampler:
    """`sample` is a pure function of weights, prompts and uids: batch mates, slots and workers do not matter."""

    def __init__(self, policy: TextPolicy, options: SamplerOptions, proposals: bool = False) -> None:
        """
        Args:
            proposals: record what each round proposes. A bidirectional model then predicts all masked positions of the
                canvas, not only those of the window; what it reveals stays the same. Remasking always records them.
        """
        _check_options(options, policy.spec)
        self.policy = policy
        self.options = options
        self.remasks = options.remask is not Remask.none
        self.proposals = proposals or self.remasks
        self.kernel = RevealKernel(options, policy.spec)

    @torch.no_grad()
    def sample(
        self, prompts: list[np.ndarray], uids: list[int], prompt_index: list[int], tree: Tree | None = None
    ) -> Samples:
        """One completion for each row.

        Args:
            prompts: token ids of each row; rows of a group repeat their prompt.
            uids: 64-bit key of each row's noise.
            prompt_index: equal for rows that share a prompt, which is then encoded once.
            tree: each `tree.leaves` rows are the leaves of one. A node is one row of the canvas, that of its first
                leaf, until it forks.
        """
        self.policy.eval()
        spec, device = self.policy.spec, self.policy.device
        if not len(prompts) == len(uids) == len(prompt_index):
            raise ValueError(
                f"{len(prompts)} prompts, {len(uids)} uids and {len(prompt_index)} prompt indices were given: "
                f"every row needs one of each"
            )
        _check_lengths(prompts, self.options.max_new_tokens, spec)
        window_length = sampling_window(self.options, spec)
        canvas = lay_out(prompts, spec, self.options.max_new_tokens, window_length, device)
        record = Record(canvas, torch.tensor([_signed(uid) for uid in uids], device=device), spec, self.options)
        counters: Counter = Counter()
        prompt_of_row = torch.tensor(prompt_index, device=device)
        if tree is not None:
            roots = torch.arange(0, len(prompts), tree.leaves, device=device)
            canvas.keep(roots)
            prompt_of_row = prompt_of_row[roots]
            record.tree, record.carrier = tree, roots.repeat_interleave(tree.leaves)
        denoiser = self._denoiser(canvas, prompt_of_row, counters)
        for index in range(canvas.windows):
            window = canvas.window(index)
            self._fill(canvas, window, denoiser, record)
            running = (~record.finished[canvas.row]).nonzero()[:, 0]
            if index == canvas.windows - 1 or len(running) == 0:
                break
            if len(running) < len(canvas.row):
                canvas.keep(running)
                denoiser.keep(running)
            denoiser.finish(canvas, window)
        return record.samples(counters)

    def _denoiser(self, canvas: Canvas, prompt_of_row: Tensor, counters: Counter) -> Denoiser:
        if cache_kind(self.options, self.policy.spec) is Cache.block:
            return CachingDenoiser(self.policy, counters, canvas, prompt_of_row)
        return RecomputingDenoiser(self.policy, counters)

    def _fill(self, canvas: Canvas, window: slice, denoiser: Denoiser, record: Record) -> None:
        """Rounds until no running row has a masked position in the window."""
        first_masked = canvas.masked[:, window].sum(-1)
        block_round = torch.zeros_like(first_masked)
        if self.remasks:  # positions of earlier windows may be open again
            window = slice(0, window.stop)
        while True:
            active = canvas.masked[:, window] & ~record.finished[canvas.row][:, None]  # (N, B)
            if not active.any():
                record.update_finished(canvas.row)
                return
            running = active.any(-1)
            row, column = self._places(canvas, window, running)
            logits = denoiser.predict(canvas, window, torch.stack([row, column]))
            if not logits.sum().isfinite():
                raise SamplingError(NOT_FINITE)
            record.computed[canvas.row[running]] += 1
            if (parent := _fork(canvas, active, record)) is not None:
                denoiser.keep(parent)
                logits = logits[_logits_of(parent, active)]
                first_masked, block_round, active = first_masked[parent], block_round[parent], active[parent]
                row, column = self._places(canvas, window, active.any(-1))
            sample = canvas.row[row]
            draw = self.kernel.draw(logits, record.uid[sample], canvas.position[row, column], record.rounds[sample] + 1)
            if self.proposals:
                record.propose(canvas, row, column, draw.tokens, self._token_log_prob(draw))
                inside = column < window.stop
                row, column, logits, draw = row[inside], column[inside], logits[inside], draw.at(inside)
            score = torch.full(active.shape, -torch.inf, device=logits.device)
            score[row, column - window.start] = draw.score
            chosen = active if self.remasks else self.kernel.select(score, active, first_masked, block_round)
            selected = chosen[row, column - window.start]  # (M,)
            support = kept_ids(draw.log_q) if self.kernel.truncates else None
            log_prob = self.kernel.log_prob(logits, draw.tokens, selected, row, support)
            canvas.ids[row[selected], column[selected]] = draw.tokens[selected]
            canvas.masked[row[selected], column[selected]] = False
            record.add(canvas, row, column, selected, draw.tokens, log_prob, support)
            block_round = block_round + active.any(-1)
            if record.confidence is not None:
                count = torch.where(active.any(-1), self.kernel.remaining(first_masked, block_round), 0)
                again = record.confidence.remasked(canvas.row, row, column, draw.score, count)
                canvas.ids[again] = self.policy.spec.mask_id
                canvas.masked |= again
                record.withdraw(canvas, again)

    def _places(self, canvas: Canvas, window: slice, running: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and columns (M,) of the masked positions that a round predicts: those inside `window`, and where
        everything that a bidirectional model proposes is kept, those behind it too.

        Args:
            running: (N,) rows that take part in the round.
        """
        bidirectional = self.policy.spec.block_length is None
        seen = slice(window.start, canvas.ids.shape[1]) if self.proposals and bidirectional else window
        row, offset = (canvas.masked[:, seen] & running[:, None]).nonzero(as_tuple=True)
        return row, offset + seen.start

    def _token_log_prob(self, draw: Draw) -> Tensor:
        """(M,) of each drawn token under the law that it was drawn from, which at temperature 0 has no other."""
        if self.options.temperature == 0:
            return torch.zeros_like(draw.log_q[:, 0])
        return draw.log_q.gather(-1, draw.tokens[:, None])[:, 0]


def _fork(canvas: Canvas, active: Tensor, record: Record) -> Tensor | None:
    """Splits the rows whose round comes behind a fork; they have been predicted, but nothing is drawn yet.

    Returns:
        (N,) former row of each row of the canvas; None if all stay as they are.
    """
    if (tree := record.tree) is None:
        return None
    rounds = record.rounds[canvas.row]
    children = torch.ones_like(rounds)
    leaves = torch.ones_like(rounds)
    for fork, factor in zip(tree.forks, tree.factors, strict=True):
        forks = (rounds == fork) & active.any(-1)
        children[forks], leaves[forks] = factor, tree.shared_by(fork)
    if (children == 1).all():
        return None
    parent = torch.arange(len(rounds), device=rounds.device).repeat_interleave(children)
    child = torch.arange(len(parent), device=rounds.device) - (children.cumsum(0) - children)[parent]
    canvas.keep(parent)
    old, canvas.row = canvas.row, canvas.row + child * leaves[parent]
    record.copy(old, canvas.row, leaves[parent])
    return parent


def _logits_of(parent: Tensor, active: Tensor) -> Tensor:
    """(M',) where the active positions of the rows `parent` stand among those of all rows."""
    place = torch.full(active.shape, -1, device=active.device)
    place[active] = torch.arange(int(active.sum()), device=active.device)
    return place[parent][active[parent]]


def sampling_window(options: SamplerOptions, spec: TextSpec) -> int:
    return options.block_length or spec.block_length or options.max_new_tokens


def cache_kind(options: SamplerOptions, spec: TextSpec) -> Cache:
    return options.cache or (Cache.none if spec.block_length is None else Cache.block)


def _check_options(options: SamplerOptions, spec: TextSpec) -> None:
    if options.remask is not Remask.none and spec.block_length is not None:
        raise ValueError(
            f"remask={options.remask.name} masks tokens of earlier blocks again, and no block of a block-causal "
            f"{spec.family} could be filled in before those behind it; use remask=none"
        )
    if spec.block_length is None and options.cache is Cache.block:
        raise ValueError(f"cache=block is exact for block-causal models only, and {spec.family} is bidirectional")
    if spec.block_length is not None and options.block_length not in (None, spec.block_length):
        raise ValueError(
            f"block_length={options.block_length}, but the attention of this {spec.family} has blocks of "
            f"{spec.block_length}"
        )


def kept_ids(log_q: Tensor) -> Tensor:
    """(M, K) ids with non-zero probability, padded with -1."""
    kept = log_q > -torch.inf
    width = int(kept.sum(-1).max())
    values, ids = log_q.topk(width, dim=-1)
    return torch.where(values > -torch.inf, ids, -1)


def _signed(uid: int) -> int:
    """The int64 with the bits of a 64-bit key."""
    return uid - 2**64 if uid >= 2**63 else uid


def _check_lengths(prompts: list[np.ndarray], max_new_tokens: int, spec: TextSpec) -> None:
    block = spec.block_length or 1
    for prompt in prompts:
        end = -(-(len(prompt) + max_new_tokens) // block) * block
        if len(prompt) == 0:
            raise ValueError("a prompt has no tokens; the first canvas position would have no context")
        if end > spec.max_length:
            raise ValueError(
                f"a prompt of {len(prompt)} tokens and a canvas of {max_new_tokens} need {end} positions, but the "
                f"model was built for {spec.max_length}: lower rollout.sampler.max_new_tokens or data.max_prompt_tokens"
            )
