"""What is minimised for each decision, given what its likelihood says. Pure functions of (M,) tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from configs.schema import AlgorithmOptions, ObjectiveKind
from rl.scores import Scores


@dataclass(frozen=True)
class DecisionLoss:
    loss: Tensor
    """(M,)"""
    ratio: Tensor
    """(M,) detached importance ratio; ones where there is none"""
    clipped: Tensor
    """(M,) bool: the clip took the gradient away"""


def decision_loss(scores: Scores, old_log_prob: Tensor, advantage: Tensor, options: AlgorithmOptions) -> DecisionLoss:
    """Loss of each decision, before weights and denominator."""
    if options.objective is ObjectiveKind.weighted:
        ones = torch.ones_like(scores.log_prob).detach()
        return DecisionLoss(-advantage * scores.log_prob, ones, torch.zeros_like(ones, dtype=torch.bool))
    low, high = _clip(scores, options)
    log_ratio = scores.log_ratio(old_log_prob, options.ratio)
    result = _ppo_clip(log_ratio, advantage, low, high)
    return DecisionLoss(result.loss * scores.loss_scale(options.ratio), result.ratio, result.clipped)


def _ppo_clip(log_ratio: Tensor, advantage: Tensor, low: Tensor, high: Tensor) -> DecisionLoss:
    """-min(r A, clip(r, 1 - low, 1 + high) A) with r = exp(log_ratio) (PPO, arXiv 1707.06347, eq. 7; the asymmetric
    clip is DAPO's, arXiv 2503.14476, eq. 10)."""
    # Beyond e^20 a ratio is noise; unbounded it becomes infinite, and infinity times a zero advantage is NaN.
    ratio = log_ratio.clamp(-20, 20).exp()
    unclipped, clipped = ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage
    return DecisionLoss(-torch.minimum(unclipped, clipped), ratio.detach(), clipped < unclipped)


def _clip(scores: Scores, options: AlgorithmOptions) -> tuple[Tensor, Tensor]:
    """(M,) half-widths below and above 1."""
    if options.clip_kl is not None:
        clip = scores.clip_of(options.clip_kl, options.ratio)
        return clip, clip
    high = options.clip if options.clip_high is None else options.clip_high
    ones = torch.ones_like(scores.log_prob).detach()
    return ones * options.clip, ones * high
