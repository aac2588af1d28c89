"""Scores of denoising losses, which know the network's output and not only its error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from configs.algorithm_options import KlEstimator
from rl.algorithm.scores import Scores

if TYPE_CHECKING:  # with diffusers, which learners of text need not import
    from rollout.images.kernels.corruption import MixingLevels

SMALLEST_ERROR = 1e-5
"""Of DiffusionNFT's weights: an estimate closer than this counts as this far from the clean latents."""


class DenoisingScores(Scores):
    def __init__(self, log_prob: Tensor, output: Tensor, latents: Tensor, clean: Tensor, level: MixingLevels) -> None:
        """
        Args:
            log_prob: (M,) minus the denoising loss.
            output: (M, C, h, w) of the network, differentiable.
            latents: (M, C, h, w) noisy latents that it saw.
            clean: (M, C, h, w) latents that the noise was added to.
        """
        super().__init__(log_prob)
        self.output = output
        self.latents = latents
        self.clean = clean
        self.level = level

    def clean_estimate(self, output: Tensor) -> Tensor:
        """(M, C, h, w) the clean latents that this output, of whatever network, makes of the noisy ones."""
        return self.level.denoised(self.latents, output)

    def kl(self, reference: Scores, estimator: KlEstimator) -> Tensor:
        """For `output`, mean over elements of (output - reference output)^2: up to a factor of the level, the KL of the
        Gaussian steps that the two outputs would make."""
        if estimator is not KlEstimator.output:
            return super().kl(reference, estimator)
        assert isinstance(reference, DenoisingScores)
        return _mean_square(self.output - reference.output)


def nft_loss(policy: DenoisingScores, old: DenoisingScores, optimality: Tensor, beta: float) -> Tensor:
    """(M,) loss of DiffusionNFT (Zheng et al., arXiv 2509.16117), in its form for clean latents.

    The policy makes a pair with the old one: the outputs (1 - beta) old + beta policy should denoise good samples, the
    outputs (1 + beta) old - beta policy bad ones. Each squared error is divided by the error's own mean size, without
    gradient. Divided by beta, the gradient at policy = old does not depend on beta.

    Args:
        policy, old: of the same rows; the old one needs no graph.
        optimality: (M,) in [0, 1], how good each sample is.
        beta: above 0; how far the pair is spread around the old policy.
    """
    before = old.output.detach()
    positive = (1 - beta) * before + beta * policy.output
    negative = (1 + beta) * before - beta * policy.output
    errors = [policy.clean_estimate(output) - policy.clean for output in (positive, negative)]
    good, bad = (_mean_square(error) / _mean_size(error) for error in errors)
    return (optimality * good + (1 - optimality) * bad) / beta


def _mean_square(difference: Tensor) -> Tensor:
    return difference.square().flatten(1).mean(-1)


def _mean_size(difference: Tensor) -> Tensor:
    return difference.detach().abs().flatten(1).mean(-1).clamp(min=SMALLEST_ERROR)
