"""The likelihood of everything that the rounds of a text proposed (MDPO, arXiv 2508.13148)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from configs.algorithm_options import Ratio
from models.text.spec import TextSpec
from rl.algorithm.scored_rows import ScoredRow
from rl.algorithm.scores import Scores
from rl.likelihood.text import check_contract
from rl.likelihood.text_rows import Row, View, attention_blocks, collate, pack
from rollout.options import Order, SamplerOptions
from rollout.text.proposals import ProposalTrajectory, proposal_view
from rollout.text.reveal import RevealKernel
from rollout.trajectory import TextTrajectory, Trajectory


class ProposalScores(Scores):
    """Rounds that had little left to guess count more in the objective, and no more than others in the KL."""

    def __init__(self, log_prob: Tensor, scale: Tensor) -> None:
        super().__init__(log_prob)
        self.scale = scale

    def loss_scale(self, ratio: Ratio) -> Tensor:
        return self.scale


@dataclass(frozen=True)
class _Content:
    row: Row
    scale: np.ndarray
    """(m,) fp32 positions of the canvas over masked ones"""


class TextProposals:
    """log q_tk(x_tk | canvas before round t), for the token x_tk that round t proposed at masked position k, whether it
    was revealed or not. The reward of a round's estimate judges all of them, so all of them have credit.

    With c_tk the recorded probability of the token, m_t the number of masked positions and L that of all, MDPO's loss
    is a mean over rounds of

        1 / m_t  sum over k of c_tk (-L / m_t C(rho_tk, A_t) + beta KL_tk),

    with C the clipped surrogate. c_tk weighs a decision, L / m_t scales its loss, and 1 / m_t with the mean over rounds
    is `denominator=step`. A block-causal model guesses a block at a time, so there L and m_t are the block's.

    It reproduces what was recorded whatever the sampler, also where tokens were masked again, and needs no correction
    for orders that look at the drawn tokens: no draw is left out. It is not the policy gradient all the same: L / m_t
    and c_tk weigh rounds and tokens. tests/rl/likelihood/test_proposals.py says how far it is off.
    """

    exact = True
    gap_scale = 1.0
    draws = 1
    overlapping = False
    fresh_noise = False

    def __init__(self, spec: TextSpec, sampler: SamplerOptions, device: torch.device) -> None:
        self.spec = spec
        self.sampler = sampler
        self.device = device
        self.kernel = RevealKernel(replace(sampler, order=Order.max_prob), spec)

    def decisions_of(self, trajectory: Trajectory) -> ProposalTrajectory:
        if isinstance(trajectory, ProposalTrajectory):
            return trajectory
        return proposal_view(check_contract(trajectory, self.sampler))

    def rows(self, trajectories: Sequence[Trajectory], draw: int) -> list[ScoredRow]:
        rows = []
        for index, trajectory in enumerate(trajectories):
            proposals = self.decisions_of(trajectory)
            for sample in range(proposals.group_size):
                rows.extend(self._sample_rows(proposals, index, sample))
        return rows

    def prepare(self, model: Callable[..., Tensor], rows: list[ScoredRow]) -> None:
        """Nothing: the proposals are recorded."""

    def score(self, model: Callable[..., Tensor], rows: list[ScoredRow]) -> ProposalScores:
        contents: list[_Content] = [row.content for row in rows]
        batch = collate([content.row for content in contents], self.spec.pad_id, self.device)
        logits = model(batch.input_ids, batch.position_ids, batch.stream, batch.block, batch.read)
        log_prob = self.kernel.log_prob(logits, batch.token, batch.selected, batch.view, None)
        return ProposalScores(log_prob, torch.from_numpy(np.concatenate([c.scale for c in contents])).to(self.device))

    def _sample_rows(self, proposals: ProposalTrajectory, index: int, sample: int) -> list[ScoredRow]:
        text = proposals.text.take([int(proposals.place[sample])])
        assert text.proposed_ids is not None
        width, length = text.canvas_ids.shape[1], int(text.canvas_length[0])
        trained = proposals.mask[sample].reshape(-1, width)[:, :length]  # (R, L)
        block = attention_blocks(len(text.prompt_ids), length, self.spec)
        rounds = trained.any(1).nonzero()[0]
        views = [_view(text.proposed_ids[0, number, :length] >= 0, trained[number], block) for number in rounds]
        scored = []
        for row, members in self._packed(text, length, rounds, views):
            number = rounds[members][row.view]  # (m,)
            scale = np.array([_inverse_rate(view, block) for view in views], np.float32)[members][row.view]
            tokens = text.proposed_ids[0, number, row.place].astype(np.int64)
            decision = number * width + row.place
            scored.append(
                ScoredRow(
                    content=_Content(replace(row, token=tokens), scale),
                    trajectory=index,
                    sample=sample,
                    decision=decision,
                    coefficient=np.ones(len(decision), np.float32),
                    step=number,
                    tokens=len(row),
                    emphasis=np.exp(proposals.logp[sample, decision]),
                )
            )
        return scored

    def _packed(
        self, text: TextTrajectory, length: int, rounds: np.ndarray, views: list[View]
    ) -> Iterator[tuple[Row, np.ndarray]]:
        """Rows and the indices of the rounds that each scores. A block-causal model has all of them behind one copy of
        the final text; a bidirectional one sees other tokens in each round, where they may have been masked again."""
        everything = np.arange(len(views))
        if self.spec.block_length is not None:
            for row in pack(text.prompt_ids, text.canvas_ids[0, :length], views, self.spec):
                yield row, everything
            return
        for index in everything:
            canvas = text.canvas_at(int(rounds[index]) + 1, self.spec.mask_id)[0, :length]
            for row in pack(text.prompt_ids, canvas, [views[index]], self.spec):
                yield row, everything[[index]]


def _view(masked: np.ndarray, trained: np.ndarray, block: np.ndarray) -> View:
    return View(masked, trained, trained, int(block[masked.argmax()]))


def _inverse_rate(view: View, block: np.ndarray) -> float:
    """Positions of the canvas, or of the block, over masked ones."""
    return float((block == view.block).sum() / view.masked.sum())
