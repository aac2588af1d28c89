"""Masks of the denoising loss of a text: which positions are hidden, and what the log-probability of each counts.

A law hides a random set S of the L trained positions; the estimate of log p(o) is the sum over k in S of
w(S) log p(o_k | o outside of S). With a fraction that is uniform in (0, 1], and w = 1 / fraction, its mean is the ELBO:
the mean, over all orders of revealing one position at a time, of the log-probability of that order's chain (MDLM,
arXiv 2406.07524, eq. 10; LLaDA, arXiv 2502.09992, eq. 3). The options are independent of each other:

- the law draws a rate t and hides each position with probability t, or draws the number of hidden positions itself, the
  lower-variance form of the same integral (LLaDA, eq. 6, which LLaDA 1.5, arXiv 2505.19223, trains on);
- `complement` scores the other positions as well, hidden where the first ones are shown, and each of the two estimates
  counts half. With a count it is ESPO's (arXiv 2512.03759), but for one thing: its count is uniform in 0 ... L with
  w = (L + 1) / count, so that at both ends a single estimate counts half, with the same mean and a larger variance;
  here the count is never 0, and L counts whole. With a rate and `full_view` 0.5 it is coupled-GRPO's
  1/2 [l_k(all hidden) + w_k l_k(S)] (DiffuCoder, arXiv 2506.20639), whose coefficients add up to 3/2, not 1;
- `rising_rate` is UniGRPO's t_n = t_1 + (n - 1) / (N - 1) (1 - t_1) in pass n of N (MMaDA, arXiv 2505.15809, alg. 1);
- `canvas_block` hides the later blocks and estimates the block-autoregressive factorisation from one random block,
  with importance the number of blocks (SPG, arXiv 2510.09541, sec. 3). All draws of a pass are of the same block, or
  the upper bound, a mean over the draws that hide a position, would be of a single draw. Only the hidden positions of
  that block are scored. SPG's public code also scores the hidden positions of the other blocks, whose fraction is
  another one: its sum estimates no factorisation.

A rate range that is not (0, 1], a rising rate, weights of 1, the full view and hidden prompts make surrogates that are
no bound. Positions that are not trained (behind the stop) keep their recorded tokens, except where nothing of the text
is to be shown (the full view, a rate that is always 1) and where `canvas_block` hides what follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from configs.algorithm_options import LikelihoodOptions, MaskLaw, MaskWeight
from rl.likelihood.text_rows import View
from rollout.noise import Purpose, uniform


@dataclass(frozen=True)
class MaskedText:
    """Views of one text under one draw of noise."""

    number: int
    """Which draw; the full view comes after the last."""
    views: list[View]
    coefficient: np.ndarray
    """(views, L) fp32, 0 where not scored"""
    importance: float
    """1 / probability that this part of the text was chosen to be scored"""
    hidden_prompt: np.ndarray
    """(P,) bool: shown as MASK"""


class MaskSampler:
    """Draws masks; they depend on the sample, the draw and the position, and on nothing else."""

    def __init__(self, options: LikelihoodOptions, epochs: int) -> None:
        self.options = options
        self.epochs = epochs

    def draw(
        self, trained: np.ndarray, block: np.ndarray, prompt_length: int, uid: int, draw: int
    ) -> Iterator[MaskedText]:
        """
        Args:
            trained: (L,) bool, the positions that may be scored.
            block: (L,) attention block of each position; one value everywhere for a bidirectional model.
            uid: key of the sample.
            draw: key of the pass, see `Likelihood.rows`.
        """
        if not trained.any():
            return
        draws, length = self.options.draws, len(trained)
        counters = draw * draws + np.arange(draws)
        blocks = np.unique(block[trained])
        quantiles = self._quantiles(uid, len(blocks), draw)
        inside, behind, importance = self._canvas_block(trained, uid, draw)
        if self.options.rate_range[0] >= 1.0:
            behind = behind | ~trained
        noise = _uniform(uid, length, counters, Purpose.CORRUPTION)  # (draws, L)
        hidden = hidden_tokens(uid, prompt_length + length, self.options.prompt_masking, counters)  # (draws, P + L)
        for number in range(draws):
            always = behind | (hidden[number, prompt_length:] & ~inside)
            views, coefficients = [], []
            for b, quantile in zip(blocks, quantiles[number], strict=True):
                own = trained & inside & (block == b)
                for masked, weight in self._masks(own, noise[number], quantile):
                    views.append(View(masked | always, masked, masked, int(b)))
                    coefficients.append(masked * np.float32(weight))
            if views:
                yield MaskedText(number, views, np.stack(coefficients), importance, hidden[number, :prompt_length])
        if self.options.full_view > 0:
            views = [View(own | ~trained, own, own, int(b)) for b in blocks for own in [trained & (block == b)]]
            once = np.float32(self.options.full_view * draws)  # scored once, and divided by `draws` like the others
            yield MaskedText(draws, views, np.stack([v.scored * once for v in views]), 1.0, hidden[0, :prompt_length])

    def _quantiles(self, uid: int, blocks: int, draw: int) -> np.ndarray:
        """(draws, blocks) in [0, 1]: how much of each block is hidden.

        Each is uniform, and they are stratified over the blocks and over the draws, (u + j) / n, which lowers the
        variance of their mean.
        """
        rising = self.options.rising_rate
        epoch = draw % self.epochs if rising else 0
        noise = _uniform(uid, blocks + 1, np.array([draw - epoch]), Purpose.LEVEL)[0]
        order = noise[1:].argsort()
        shift = np.arange(self.options.draws)[:, None] / self.options.draws
        quantile = ((noise[0] + order) / blocks + shift) % 1
        return quantile + epoch / (self.epochs - 1) * (1 - quantile) if rising else quantile

    def _canvas_block(self, trained: np.ndarray, uid: int, draw: int) -> tuple[np.ndarray, np.ndarray, float]:
        """(L,) bool positions of the pass's block, (L,) bool those that it does not see, number of blocks."""
        size = self.options.canvas_block
        if size is None:
            return np.ones_like(trained), np.zeros_like(trained), 1.0
        own = np.arange(len(trained)) // size
        candidates = np.unique(own[trained])
        quantile = _uniform(uid, 1, np.array([draw]), Purpose.PART)[0, 0]
        picked = candidates[int(quantile * len(candidates))]
        return own == picked, (own > picked) | ((own == picked) & ~trained), float(len(candidates))

    def _masks(self, inside: np.ndarray, noise: np.ndarray, quantile: float) -> Iterator[tuple[np.ndarray, float]]:
        """(L,) bool masks that hide something of `inside`, each with its weight."""
        if self.options.mask_law is MaskLaw.exact_count:
            size = int(inside.sum())
            count = min(int(quantile * size), size - 1) + 1
            first = np.zeros_like(inside)
            first[inside.nonzero()[0][noise[inside].argsort()[:count]]] = True
            fraction = count / size
        else:
            low, high = self.options.rate_range
            fraction = low + (high - low) * quantile
            first = inside & (noise < fraction)
        share = 0.5 if self.options.complement and fraction < 1 else 1.0
        if first.any():
            yield first, self._weight(share, fraction)
        if share < 1 and (inside & ~first).any():
            yield inside & ~first, self._weight(share, 1 - fraction)

    def _weight(self, share: float, fraction: float) -> float:
        return share / fraction if self.options.mask_weight is MaskWeight.elbo else 1.0


def hidden_tokens(uid: int, count: int, probability: float, counters: np.ndarray) -> np.ndarray:
    """(draws, count) bool: which tokens of a sample are hidden though they are not scored (diffu-GRPO's masked prompts,
    d1, arXiv 2504.12216).

    Args:
        counters: (draws,) key of each draw.
    """
    if probability == 0:
        return np.zeros((len(counters), count), bool)
    return _uniform(uid, count, counters, Purpose.CONTEXT) < probability


def sampled(uid: int, total: int, wanted: int, draw: int) -> np.ndarray:
    """(wanted,) sorted indices out of `total`, every subset equally likely."""
    return np.sort(_uniform(uid, total, np.array([draw]), Purpose.PART)[0].argsort()[:wanted])


def _uniform(uid: int, count: int, counters: np.ndarray, purpose: Purpose) -> np.ndarray:
    """(draws, count) fp64 in [0, 1)."""
    return uniform(torch.tensor(uid), torch.arange(count), torch.from_numpy(counters)[:, None], purpose).numpy()
