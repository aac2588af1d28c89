"""Scores of Gaussian denoising steps, which know their mean and not only their density."""

from __future__ import annotations

import torch
from torch import Tensor

from configs.algorithm_options import KlEstimator, Ratio
from rl.algorithm.scores import Scores
from rollout.images.kernels.gaussian import GaussianSteps, clip_from_kl
from rollout.noise import Purpose, normal
from rollout.options import Reduction


class GaussianScores(Scores):
    def __init__(self, kernel: GaussianSteps, mean: Tensor, following: Tensor, step: Tensor, uid: Tensor) -> None:
        """
        Args:
            mean: (M, C, h, w) of each step under the present weights.
            following: (M, C, h, w) recorded next latents.
            step: (M,) int64 place in the schedule.
            uid: (M,) int64 noise key of each step's sample.
        """
        super().__init__(kernel.log_prob(following, mean, step))
        self.kernel = kernel
        self.mean = mean
        self.following = following
        self.step = step
        self.uid = uid

    def log_ratio(self, old_log_prob: Tensor, ratio: Ratio) -> Tensor:
        """For `guard`, GRPO-Guard's (arXiv 2510.22319): std (log ratio + KL(old || new)). The old mean is not stored;
        it is the recorded latent without the noise that led there, which is drawn again."""
        if ratio is not Ratio.guard:
            return super().log_ratio(old_log_prob, ratio)
        return self.kernel.guard_log_ratio(self.following, self.mean, self._old_mean(), self.step)

    def kl(self, reference: Scores, estimator: KlEstimator) -> Tensor:
        assert isinstance(reference, GaussianScores)
        if estimator is KlEstimator.exact:
            return self.kernel.kl(self.mean, reference.mean, self.step)
        if estimator is KlEstimator.flow_grpo:
            return self.kernel.flow_grpo_kl(self.mean, reference.mean, self.step)
        return super().kl(reference, estimator)

    def kl_from_old(self, old_log_prob: Tensor, estimator: KlEstimator) -> Tensor:
        if estimator is KlEstimator.exact:
            return self.kernel.kl(self.mean, self._old_mean(), self.step)
        return super().kl_from_old(old_log_prob, estimator)

    def divergence_from_old(self, old_log_prob: Tensor) -> Tensor:
        """In nats whatever the log-probabilities are reduced by. Gaussians with the same deviation: it is symmetric."""
        reduced = self.kernel.kl(self.mean, self._old_mean(), self.step)
        return reduced if self.kernel.reduction is Reduction.sum else reduced * self.mean[0].numel()

    def _old_mean(self) -> Tensor:
        """(M, C, h, w) mean of each step under the policy that made it."""
        noise = normal(self.uid, self.following.shape[1:], self.step, Purpose.DIFFUSION)
        return self.kernel.old_mean(self.following, noise, self.step)

    def clip_of(self, nats: float, ratio: Ratio) -> Tensor:
        elements = self.mean[0].numel()
        width = torch.full_like(self.log_prob, clip_from_kl(nats, elements, self.kernel.reduction)).detach()
        return width * self.kernel.std(self.step).to(width) if ratio is Ratio.guard else width

    def loss_scale(self, ratio: Ratio) -> Tensor:
        if ratio is not Ratio.guard:
            return super().loss_scale(ratio)
        return 1.0 / self.kernel.output_scale(self.step).to(self.log_prob)
