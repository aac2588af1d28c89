"""The exact sampler of masked and block-diffusion language models: window by window, round by round, recorded."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.text.policy import TextPolicy, TextSpec
from rollout.branching import Tree
from rollout.options import Cache, Remask, SamplerOptions
from rollout.text.canvas import Canvas, lay_out
from rollout.text.denoiser import CachingDenoiser, Denoiser, RecomputingDenoiser
from rollout.text.remask import RunningConfidence
from rollout.text.reveal import Draw, RevealKernel

NOT_FINITE = (
    "the model's logits are not finite, so no token can be drawn. Before the first update: the checkpoint's weights "
    "are damaged, or overflow in model.precision. Later: training has diverged; go on from an earlier checkpoint with "
    "a lower algorithm.optimizer.learning_rate"
)


class SamplingError(RuntimeError):
    """The policy yields no distribution to sample from."""


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
        record = _Record(canvas, torch.tensor([_signed(uid) for uid in uids], device=device), spec, self.options)
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

    def _fill(self, canvas: Canvas, window: slice, denoiser: Denoiser, record: _Record) -> None:
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


def _fork(canvas: Canvas, active: Tensor, record: _Record) -> Tensor | None:
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


class _Record:
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


def _dense(support: list[dict[int, np.ndarray]], length: int) -> np.ndarray:
    """(N, length, K)"""
    width = max(len(ids) for places in support for ids in places.values())
    dense = np.full((len(support), length, width), -1, np.int32)
    for sample, places in enumerate(support):
        for place, ids in places.items():
            dense[sample, place, : len(ids)] = ids
    return dense


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
