"""What a likelihood says about decisions, and what follows from it: ratio, KL to a reference, width of the clip."""

from __future__ import annotations

import torch
from torch import Tensor

from configs.algorithm_options import KlEstimator, Ratio


class Scores:
    """What a likelihood says about M decisions; subclasses know more than the log-probability."""

    def __init__(self, log_prob: Tensor) -> None:
        self.log_prob = log_prob
        """(M,) fp32 or wider, differentiable in the model's weights"""

    def log_ratio(self, old_log_prob: Tensor, ratio: Ratio) -> Tensor:
        """(M,) logarithm of the importance ratio to the policy whose log-probabilities are given."""
        if ratio is Ratio.guard:
            raise TypeError("ratio=guard needs Gaussian steps; the configuration check should have refused it")
        return self.log_prob - old_log_prob

    def kl(self, reference: Scores, estimator: KlEstimator) -> Tensor:
        """(M,) KL(policy || reference), or an estimate of it from the decisions that were drawn."""
        return kl_to_reference(self.log_prob, reference.log_prob, estimator)

    def kl_from_old(self, old_log_prob: Tensor, estimator: KlEstimator) -> Tensor:
        """(M,) the same to the old policy."""
        return kl_to_reference(self.log_prob, old_log_prob, estimator)

    def divergence_from_old(self, old_log_prob: Tensor) -> Tensor:
        """(M,) KL(old || new), of which categorical decisions keep what can be told from one token: whether it is that
        token or not (DPPO's binary KL, arXiv 2602.04879)."""
        old, new = old_log_prob.exp(), self.log_prob.exp()
        rest_old, rest_new = (1 - old).clamp(min=1e-6), (1 - new).clamp(min=1e-6)
        return old * (old_log_prob - self.log_prob) + rest_old * (rest_old.log() - rest_new.log())

    def clip_of(self, nats: float, ratio: Ratio) -> Tensor:
        """(M,) half-width of the ratio's clip at which a step has moved `nats` away from the old policy.

        A shift of KL k changes a log-probability by sqrt(2 k) in standard deviation (exact for Gaussians, to second
        order for everything else).
        """
        return torch.full_like(self.log_prob, (2 * nats) ** 0.5).detach()

    def loss_scale(self, ratio: Ratio) -> Tensor:
        """(M,) factor of each decision's loss that belongs to the kind of ratio; ones but for `guard`."""
        return torch.ones_like(self.log_prob).detach()


def kl_to_reference(log_prob: Tensor, reference_log_prob: Tensor, estimator: KlEstimator) -> Tensor:
    """(M,) estimate of KL(policy || reference) at decisions drawn from the policy, by J. Schulman's k1, k2, k3
    ("Approximating KL divergence", 2020). With u = log reference - log policy: -u, u^2 / 2, e^u - 1 - u.

    As a loss on the policy's own samples, k2 has the KL's gradient, k3 nearly so, and k1 none: the mean of its gradient
    is that of the score, zero (arXiv 2510.01555).
    """
    u = reference_log_prob - log_prob
    if estimator is KlEstimator.k1:
        return -u
    if estimator is KlEstimator.k2:
        return 0.5 * u.square()
    if estimator is KlEstimator.k3:
        return u.expm1() - u
    raise TypeError(f"kl.estimator={estimator.name} needs Gaussian steps; the configuration check should refuse it")
