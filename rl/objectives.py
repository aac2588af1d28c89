"""What is minimised for each decision, given its log-probability. Pure functions of (M,) fp32 tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from configs.schema import AlgorithmOptions, KlEstimator, ObjectiveKind


@dataclass(frozen=True)
class DecisionLoss:
    loss: Tensor
    """(M,)"""
    ratio: Tensor
    """(M,) detached importance ratio; ones where there is none"""
    clipped: Tensor
    """(M,) bool: the clip took the gradient away"""


def decision_loss(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, options: AlgorithmOptions) -> DecisionLoss:
    """Loss of each decision, before weights and denominator."""
    if options.objective is ObjectiveKind.weighted:
        return DecisionLoss(
            -advantage * log_prob, torch.ones_like(log_prob).detach(), torch.zeros_like(log_prob, dtype=torch.bool)
        )
    return _ppo_clip(log_prob, old_log_prob, advantage, options)


def _ppo_clip(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, options: AlgorithmOptions) -> DecisionLoss:
    """-min(r A, clip(r, 1 - low, 1 + high) A) with r = exp(log_prob - old) (PPO, arXiv 1707.06347, eq. 7; the
    asymmetric clip is DAPO's, arXiv 2503.14476, eq. 10)."""
    # Beyond e^20 a ratio is noise; unbounded it becomes infinite, and infinity times a zero advantage is NaN.
    ratio = (log_prob - old_log_prob).clamp(-20, 20).exp()
    high = options.clip if options.clip_high is None else options.clip_high
    unclipped, clipped = ratio * advantage, ratio.clamp(1 - options.clip, 1 + high) * advantage
    return DecisionLoss(-torch.minimum(unclipped, clipped), ratio.detach(), clipped < unclipped)


def kl_to_reference(log_prob: Tensor, reference_log_prob: Tensor, estimator: KlEstimator) -> Tensor:
    """(M,) estimate of KL(policy || reference) at decisions drawn from the policy, by J. Schulman's k1, k2, k3
    ("Approximating KL divergence", 2020). With u = log reference - log policy: -u, u^2 / 2, e^u - 1 - u."""
    u = reference_log_prob - log_prob
    if estimator is KlEstimator.k1:
        return -u
    if estimator is KlEstimator.k2:
        return 0.5 * u.square()
    return u.expm1() - u
