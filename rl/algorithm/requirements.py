"""What an algorithm's options ask for beside the policy. Without torch: a list of algorithms must not wait for it."""

from __future__ import annotations

from configs.algorithm_options import AlgorithmOptions, KlEstimator, KlTarget, LikelihoodKind, ObjectiveKind, Ratio

WHOLE_SAMPLES = (ObjectiveKind.group_dpo, ObjectiveKind.sandwich, ObjectiveKind.linear_bound)
"""Objectives that have one number a sample, of all its rows."""
SAMPLED_ESTIMATORS = (KlEstimator.k1, KlEstimator.k2, KlEstimator.k3)


def is_coupled(options: AlgorithmOptions, overlapping: bool) -> bool:
    """Whether the loss joins log-probabilities of different rows, so that it cannot be taken a micro-batch at a time.

    Args:
        overlapping: several rows may score one decision.
    """
    if options.objective in WHOLE_SAMPLES:
        return True
    if options.objective is ObjectiveKind.weighted:
        return False
    return options.ratio is Ratio.sequence or (overlapping and options.ratio is Ratio.element)


def needs_reference(options: AlgorithmOptions) -> bool:
    """Whether there must be a frozen model."""
    kl = options.kl.coefficient > 0 and options.kl.to is KlTarget.reference
    return kl or options.objective is ObjectiveKind.group_dpo


def needs_old(options: AlgorithmOptions) -> bool:
    """Whether the loss compares with the policy before the update."""
    return options.ratio is not Ratio.none or (options.kl.coefficient > 0 and options.kl.to is KlTarget.old)


def kl_is_joint(options: AlgorithmOptions, overlapping: bool) -> bool:
    """Whether the KL is taken of units that several rows make together, as the ratio is."""
    joint = options.ratio is Ratio.sequence or (options.ratio is Ratio.element and overlapping)
    return joint and options.kl.estimator in SAMPLED_ESTIMATORS


def differentiates_reward(options: AlgorithmOptions) -> bool:
    """Training by the gradient of the reward itself: the learners draw the samples."""
    return options.likelihood.kind is LikelihoodKind.reward_gradient
