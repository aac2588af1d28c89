"""What is minimised, given the log-probabilities of a minibatch's decisions. Pure functions of tensors.

An objective sees *units* (`rl.algorithm.decisions`): decisions, steps or samples, by `algorithm.ratio`. Those that
compare samples with each other (`group_dpo`) or need several numbers of one (`sandwich`, `linear_bound`) build
their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from configs.algorithm_options import AlgorithmOptions, ObjectiveKind, Ratio
from rl.algorithm.bounds import upper_bound
from rl.algorithm.custom import custom_loss
from rl.algorithm.decisions import Decisions, Units, numbered, units_of
from rl.algorithm.denoising_scores import DenoisingScores, nft_loss
from rl.algorithm.requirements import kl_is_joint
from rl.algorithm.scored_rows import Estimator
from rl.algorithm.scores import Scores, kl_to_reference

MAX_LOG_RATIO = 20.0
"""Beyond e^20 a ratio is noise; unbounded it becomes infinite, and infinity times a zero advantage is NaN."""
WholeSum = Callable[[Tensor], Tensor]
"""From a sum over the decisions at hand to the same sum over the minibatch, all ranks included."""


@dataclass(frozen=True)
class Loss:
    value: Tensor
    """Scalar: this rank's part of a loss that is a sum over ranks."""
    weight: Tensor
    """(U,) share of each unit; 0 where it only keeps ranks in step"""
    measures: dict[str, Tensor]
    """(U,) detached, by metric"""


def policy_loss(
    scores: Scores,
    decisions: Decisions,
    options: AlgorithmOptions,
    draws: int,
    whole_sum: WholeSum,
    old_policy: Scores | None = None,
) -> Loss:
    """The objective over some decisions of a minibatch, without its KL.

    Args:
        old_policy: its scores of the same decisions, for `nft`.
    """
    kind = options.objective
    if kind is ObjectiveKind.weighted:
        loss = _weighted(scores, decisions, draws)
    elif kind is ObjectiveKind.group_dpo:
        loss = _group_dpo(scores, decisions, options, draws)
    elif kind is ObjectiveKind.sandwich:
        loss = _sandwich(scores, decisions, options, draws)
    elif kind is ObjectiveKind.nft:
        loss = _nft(scores, old_policy, decisions, options, draws)
    elif kind is ObjectiveKind.linear_bound:
        loss = _linear_bound(scores, decisions, options, draws)
    else:
        loss = _ratio_loss(scores, decisions, options, draws, whole_sum)
    if options.anchor == 0:
        return loss
    anchor = _negative_log_likelihood(scores, decisions, draws)
    return Loss(loss.value + options.anchor * anchor, loss.weight, loss.measures)


def old_of(scores: Scores, decisions: Decisions) -> Tensor:
    """(M,) log-probabilities before the first update: with nothing recorded yet, the present ones."""
    return scores.log_prob.detach() if decisions.old is None else decisions.old


# Without a ratio


def _weighted(scores: Scores, decisions: Decisions, draws: int) -> Loss:
    """-A log pi: REINFORCE, supervised learning, wd1's weighted likelihood (arXiv 2507.08838), for
    A = w+ - w-, the softmax of a group's advantages minus that of their negatives."""
    units, weight = units_of(decisions, Ratio.none, draws)
    gain = units.mean(scores.loss_scale(Ratio.none)) * units.mean(decisions.advantage)
    value = -(weight * gain * units.estimate(scores.log_prob)).sum()
    return Loss(value, weight, _ratio_measures(torch.ones_like(weight), torch.zeros_like(weight)))


def _negative_log_likelihood(scores: Scores, decisions: Decisions, draws: int) -> Tensor:
    """Scalar: minus the log-likelihood of what the anchor imitates. Each decision weighs as in the policy's loss, which
    is a mean over all samples: of pairs, half of what supervised training on the chosen answers would minimise."""
    units, weight = units_of(decisions, Ratio.none, draws)
    return -(weight * decisions.imitated * units.estimate(scores.log_prob)).sum()


# Ratios of units by themselves


def _ratio_loss(
    scores: Scores, decisions: Decisions, options: AlgorithmOptions, draws: int, whole_sum: WholeSum
) -> Loss:
    units, weight = units_of(decisions, options.ratio, draws)
    advantage, low, high = (units.mean(v) for v in (decisions.advantage, *_clip(scores, options)))
    ratio = _ratio(scores, decisions, options, units)
    if options.objective is ObjectiveKind.ppo_clip:
        each, held = _ppo_clip(ratio, advantage, low, high, options.dual_clip)
    elif options.objective is ObjectiveKind.clip_always:
        each, held = _clip_always(ratio, advantage, low, high)
    elif options.objective is ObjectiveKind.custom:
        each = custom_loss(_log_ratio(scores, decisions, options, units), advantage, options)
        held = torch.zeros_like(ratio, dtype=torch.bool)
    else:
        moved = units.estimate(scores.divergence_from_old(old_of(scores, decisions)).detach())
        each, held = _trust_region(ratio, advantage, moved, options.clip_kl)
    value = (weight * units.mean(scores.loss_scale(options.ratio)) * each).sum()
    if options.self_normalise:
        value = value / whole_sum(_clipped_sum(ratio, weight, low, high))
    return Loss(value, weight, _ratio_measures(ratio, held))


def clipped_ratios(scores: Scores, decisions: Decisions, options: AlgorithmOptions, draws: int) -> Tensor:
    """Scalar: what `self_normalise` divides the loss by (StableDRL, arXiv 2603.06743), as far as these decisions add to
    it: the weighted sum of their clipped ratios. A constant to the gradient."""
    units, weight = units_of(decisions, options.ratio, draws)
    low, high = (units.mean(v) for v in _clip(scores, options))
    return _clipped_sum(_ratio(scores, decisions, options, units), weight, low, high)


def _clipped_sum(ratio: Tensor, weight: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return (weight * ratio.detach().clamp(1 - low, 1 + high)).sum()


def _ratio(scores: Scores, decisions: Decisions, options: AlgorithmOptions, units: Units) -> Tensor:
    """(U,)"""
    return _log_ratio(scores, decisions, options, units).exp()


def _log_ratio(scores: Scores, decisions: Decisions, options: AlgorithmOptions, units: Units) -> Tensor:
    """(U,)"""
    log_ratio = units.estimate(scores.log_ratio(old_of(scores, decisions), options.ratio))
    if options.ratio is Ratio.sequence:
        log_ratio = log_ratio / units.mean(decisions.length)
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def _ppo_clip(
    ratio: Tensor, advantage: Tensor, low: Tensor, high: Tensor, dual_clip: float | None
) -> tuple[Tensor, Tensor]:
    """-min(r A, clip(r, 1 - low, 1 + high) A) (PPO, arXiv 1707.06347, eq. 7; the asymmetric clip is DAPO's, arXiv
    2503.14476). With `dual_clip` c the gain is at least c A where A < 0 (arXiv 1912.09729, eq. 5).

    Returns:
        (U,) loss and (U,) bool: the clip took the gradient away. So do the others.
    """
    unclipped, clipped = ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage
    gain, held = torch.minimum(unclipped, clipped), clipped < unclipped
    if dual_clip is not None:
        floor = dual_clip * advantage
        held = held | ((advantage < 0) & (gain < floor))
        gain = torch.where(advantage < 0, torch.maximum(gain, floor), gain)
    return -gain, held


def _clip_always(ratio: Tensor, advantage: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """-clip(r, 1 - low, 1 + high) A whatever the sign of A (StableDRL, arXiv 2603.06743, and DPOK's code): a noisy
    ratio cannot blow up a negative advantage. Beyond the band there is no gradient, not even back into it."""
    return -ratio.clamp(1 - low, 1 + high) * advantage, (ratio < 1 - low) | (ratio > 1 + high)


def _trust_region(ratio: Tensor, advantage: Tensor, moved: Tensor, limit: float | None) -> tuple[Tensor, Tensor]:
    """-r A without a clip; a unit that is `limit` nats away from the old policy and moving on teaches nothing (DPPO,
    arXiv 2602.04879, for tokens; Flow-DPPO, arXiv 2606.11025, for Gaussian steps).

    Args:
        moved: (U,) KL(old || new).
    """
    assert limit is not None  # checked with the configuration
    held = (moved >= limit) & ((ratio - 1) * advantage > 0)
    return -torch.where(held, ratio.detach(), ratio) * advantage, held


def _clip(scores: Scores, options: AlgorithmOptions) -> tuple[Tensor, Tensor]:
    """(M,) half-widths below and above 1."""
    if options.clip_kl is not None:
        clip = scores.clip_of(options.clip_kl, options.ratio)
        return clip, clip
    high = options.clip if options.clip_high is None else options.clip_high
    ones = torch.ones_like(scores.log_prob).detach()
    return ones * options.clip, ones * high


def _ratio_measures(ratio: Tensor, held: Tensor) -> dict[str, Tensor]:
    return {"ratio/mean": ratio.detach(), "ratio/clip_fraction": held.to(ratio.dtype)}


def _nft(
    scores: Scores, old_policy: Scores | None, decisions: Decisions, options: AlgorithmOptions, draws: int
) -> Loss:
    """DiffusionNFT (arXiv 2509.16117): the advantage, limited to +-a, becomes the probability A / 2a + 1/2 of being a
    good sample, and the loss is multiplied by a."""
    assert isinstance(scores, DenoisingScores)  # checked with the configuration, as is the limit
    assert isinstance(old_policy, DenoisingScores)
    limit = options.advantage_clip
    assert limit is not None
    units, weight = units_of(decisions, Ratio.none, draws)
    optimality = (units.mean(decisions.advantage) / (2 * limit) + 0.5).clamp(0, 1)
    value = (weight * limit * nft_loss(scores, old_policy, optimality, options.beta)).sum()
    return Loss(value, weight, {"nft/optimality": optimality})


# Several numbers of a sample, or several samples


def _linear_bound(scores: Scores, decisions: Decisions, options: AlgorithmOptions, draws: int) -> Loss:
    """The clipped sequence surrogate with bounds that are sums over draws (BGPO, arXiv 2510.11683): the sample's
    log-ratio is the mean of its draws' x, and e^mean(x) >= 1 + mean(x) is used for A > 0, e^mean(x) <= mean(e^x) for
    A < 0. A draw that scores block by block has a term for each block; x is then so many times the block's share."""
    units, _ = units_of(decisions, Ratio.step, draws)
    samples, sample_weight = units_of(decisions, Ratio.sequence, draws)
    sample_of = units.of_each(samples.index)
    terms = torch.bincount(sample_of)[sample_of]
    weight = sample_weight[sample_of] / terms
    share = units.total(samples.factor * scores.log_ratio(old_of(scores, decisions), Ratio.sequence))
    log_ratio = terms * share / units.mean(decisions.length)
    advantage, low, high = (units.mean(v) for v in (decisions.advantage, *_clip(scores, options)))
    ratio = torch.where(advantage > 0, 1 + log_ratio, log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp())
    each, held = _ppo_clip(ratio, advantage, low, high, None)
    return Loss((weight * each).sum(), weight, _ratio_measures(ratio, held))


def _sandwich(scores: Scores, decisions: Decisions, options: AlgorithmOptions, draws: int) -> Loss:
    """-A x bound of the log-likelihood per decision: the lower one where A > 0, a mixture of upper and lower where
    A < 0, so that the objective is bounded from below (SPG, arXiv 2510.09541)."""
    units, weight = units_of(decisions, Ratio.sequence, draws)
    tokens, _ = units_of(decisions, Ratio.element, draws)
    advantage = units.mean(decisions.advantage)
    lower = units.estimate(scores.log_prob) / units.mean(decisions.length)
    each = upper_bound(
        scores.log_prob, decisions.coefficient.log(), tokens.index, tokens.count, draws, options.upper_power
    )
    share = 1 / tokens.total(torch.ones_like(scores.log_prob).detach())[tokens.index]  # a token counts once
    upper = units.total(share * each[tokens.index]) / units.total(share)
    mixed = options.upper_share * upper + (1 - options.upper_share) * lower
    value = -(weight * advantage * torch.where(advantage > 0, lower, mixed)).sum()
    return Loss(value, weight, {"bound/lower": lower.detach(), "bound/upper": upper.detach()})


def _group_dpo(scores: Scores, decisions: Decisions, options: AlgorithmOptions, draws: int) -> Loss:
    """-log sigmoid(beta x sum over a group of A x (log-likelihood - the reference's)).

    With advantages +1 and -1 it is DPO (arXiv 2305.18290, eq. 7); with a denoising loss as the likelihood VRPO (arXiv
    2505.19223) and Diffusion-DPO (arXiv 2311.12908, eq. 14: its beta T omega is ours for minus the squared error as the
    log-likelihood; for minus the mean squared error, as in its code, our beta is half of that code's); with
    group-normalised advantages DGPO (arXiv 2510.08425), whose 1 / G is left to beta. With `reference_clip` e the
    difference is the logarithm of the ratio clipped to 1 - e ... 1 + e, as in the code of SPO (arXiv 2406.04314).

    With all log-likelihoods the reference's it is log 2, also where a draw of masks hid nothing of an answer and says 0
    of it. A group of which no answer had anything hidden is not there and adds nothing: with uniform rates one pair in
    (L + 1)^2 for answers of L tokens.
    """
    assert decisions.reference is not None
    units, weight = units_of(decisions, Ratio.sequence, draws)
    log_ratio = units.estimate(scores.log_prob - decisions.reference)
    if (clip := options.reference_clip) is not None:
        log_ratio = log_ratio.clamp(math.log1p(-clip), math.log1p(clip))
    gained = units.mean(decisions.advantage) * log_ratio
    groups = Units(*numbered(units.of_each(decisions.group)), torch.ones_like(gained))
    inside = options.beta * groups.total(gained)
    group_weight = groups.total(weight) + groups.mean(units.mean(decisions.unscored_weight))
    measures = {"preference/accuracy": (inside > 0).to(inside).detach(), "preference/margin": inside.detach()}
    return Loss(-(group_weight * logsigmoid(inside)).sum(), group_weight, measures)


# KL


def kl_loss(
    scores: Scores, reference: Scores | None, decisions: Decisions, options: AlgorithmOptions, likelihood: Estimator
) -> Loss:
    """KL to the reference, or to the old policy if that is None, of each decision.

    With ratio=sequence, of whole samples and then per decision (ESPO, arXiv 2512.03759): k3 of such a sum explodes, k2
    does not.
    """
    estimator, measure = options.kl.estimator, f"kl/{options.kl.to.value}"
    joint = kl_is_joint(options, likelihood.overlapping)
    units, weight = units_of(decisions, options.ratio if joint else Ratio.none, likelihood.draws)
    if joint:
        other = old_of(scores, decisions) if reference is None else reference.log_prob
        kl = kl_to_reference(units.estimate(scores.log_prob), units.estimate(other), estimator)
        if options.ratio is Ratio.sequence:
            kl = kl / units.mean(decisions.length)
    elif reference is None:
        kl = scores.kl_from_old(old_of(scores, decisions), estimator)
    else:
        kl = scores.kl(reference, estimator)
    return Loss((weight * kl).sum(), weight, {measure: kl.detach()})
