"""What an algorithm is: a cell of likelihood x ratio x objective x advantage, and its options."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from configs.algorithm_options.advantage import AdvantageKind, RunningOptions, TermScale
from configs.algorithm_options.custom import CustomOptions
from configs.algorithm_options.kl import KlOptions
from configs.algorithm_options.likelihood import (
    LikelihoodOptions,
)
from configs.algorithm_options.objective import AnchorOn, Denominator, ObjectiveKind, OldPolicyOptions, Ratio
from configs.algorithm_options.optimizer import OptimizerOptions, ValueOptions
from configs.algorithm_options.reward_gradient import RewardGradientOptions


@dataclass
class AlgorithmOptions:
    """likelihood x ratio x objective x advantage; a recipe is a YAML file that fills these in."""

    likelihood: LikelihoodOptions = field(default_factory=LikelihoodOptions)
    """The number that stands for the log-probability of a sample."""
    ratio: Ratio = Ratio.element
    """What one importance ratio is taken of."""
    objective: ObjectiveKind = ObjectiveKind.ppo_clip
    """What is minimised, given ratios and advantages."""
    advantage: AdvantageKind = AdvantageKind.zscore
    """What a sample's reward is compared with."""
    normalise_terms: TermScale = TermScale.none
    """What makes each reward term comparable, within its group, before they are weighted and summed."""
    advantage_clip: Optional[float] = None  # noqa: UP045
    """Advantages are limited to this size; null is unlimited. Unit: advantages."""
    advantage_epsilon: float = 1e-4
    """Added to the standard deviation that an advantage is divided by: rewards of a group that differ by less hardly
    count (public GRPO trainers: 1e-4; DDPO: 1e-6; DanceGRPO: 1e-8). Unit: rewards."""
    sample_std: bool = False
    """That standard deviation is the sample's, with N - 1, in place of the population's (DanceGRPO)."""
    positive_only: bool = False
    """With advantage=softmax leave out the softmax of the negatives, so that good samples are imitated and none is
    unlearned (psr in wd1's code)."""
    running: RunningOptions = field(default_factory=RunningOptions)
    """Statistics of the rewards of a prompt over updates (advantage=running)."""
    selected_steps: Optional[int] = None  # noqa: UP045
    """Text, advantage=per_step: rounds of a group that are trained, those of the largest advantages (MDPO: 8); null
    trains all. Unit: rounds."""
    leaf_weights: bool = False
    """Let a branch of a tree count for each of the samples that share it, which makes advantage=siblings unbiased
    (with denominator=token); false counts it once, as the papers do."""
    extremes: Optional[float] = None  # noqa: UP045
    """Train of each set of siblings, or of a group without branching, only the best sample if its advantage is at least
    this, and the worst if it is at most minus this (B2-DiffuRL: 0.5); null trains all. Unit: advantages."""
    extreme_samples: Optional[int] = None  # noqa: UP045
    """Train of each group only this many samples of the highest advantages and as many of the lowest; with advantages
    of branches only so many leaves, behind the step of the last fork (BranchGRPO's width pruning); null trains all.
    Unit: samples."""
    value: Optional[ValueOptions] = None  # noqa: UP045
    """Train a value model; null has none."""
    filter_zero_variance: bool = True
    """Leave groups whose rewards are all equal out of the loss and out of its denominator."""
    least_difference: Optional[float] = None  # noqa: UP045
    """Leave out groups whose highest and lowest reward differ by no more than this (SPO), as if they were equal. Unit:
    rewards."""
    solved_band: Optional[tuple[float, float]] = None  # noqa: UP045
    """Leave out groups whose solved fraction lies outside these bounds (TraceRL: 0.2 and 0.8). Unit: share of a
    group."""
    clip: float = 0.2
    """Half-width of the clip of a ratio around 1; `clip_high` is another one above 1. Unit: 1."""
    clip_high: Optional[float] = None  # noqa: UP045
    """Upper clip half-width; null is the same as `clip`. Unit: 1."""
    clip_kl: Optional[float] = None  # noqa: UP045
    """Clip width in nats: the width of the ratio when one decision has moved this far from the old policy. Unlike
    `clip`, which it replaces, it means the same for every latent size and convention. Unit: nats."""
    dual_clip: Optional[float] = None  # noqa: UP045
    """Largest ratio that a negative advantage is multiplied by; above 1. Unit: 1."""
    self_normalise: bool = False
    """Divide the loss by the mean of the clipped ratios of the minibatch (StableDRL)."""
    beta: float = 0.1
    """Scale of the log-likelihoods against the reference's (objective=group_dpo); how far ahead and behind (nft). Unit:
    1."""
    reference_clip: Optional[float] = None  # noqa: UP045
    """Half-width of the clip of a sample's ratio to the reference (objective=group_dpo; SPO: 0.1): beyond it the sample
    has no gradient, not even back. Null is unlimited. Unit: 1."""
    old: OldPolicyOptions = field(default_factory=OldPolicyOptions)
    """The slow copy of the policy that generates the samples (objective=nft)."""
    upper_power: float = 1.5
    """Power of the upper bound (objective=sandwich). Unit: 1."""
    upper_share: float = 0.5
    """Share of the upper bound where the advantage is negative (objective=sandwich). Unit: 1."""
    anchor: float = 0.0
    """Times the supervised loss on some of the samples, beside the objective. Unit: 1."""
    anchor_on: AnchorOn = AnchorOn.better
    """The samples that the anchor is taken of."""
    anchor_growth: Optional[float] = None  # noqa: UP045
    """Let the anchor rise over the run, from 0: its share after t of the updates is (e^gt - 1) / (e^g - 1), with this
    as g (d-TreeRPO: 2). Null keeps it constant. Unit: 1."""
    denominator: Denominator = Denominator.token
    """What the sum over decisions is divided by."""
    kl: KlOptions = field(default_factory=KlOptions)
    """The distance to another policy, which is added to the loss."""
    custom: CustomOptions = field(default_factory=CustomOptions)
    """Parts that you bring along."""
    reward_gradient: RewardGradientOptions = field(default_factory=RewardGradientOptions)
    """Where the gradient of a reward goes (likelihood.kind=reward_gradient)."""
    minibatches: int = 1
    """Optimizer updates that one pass over an update's samples is split into. Unit: updates."""
    epochs: int = 1
    """Passes over an update's samples. Unit: passes."""
    micro_batch_tokens: int = 16384
    """Tokens, padding included, of one forward and backward pass. Unit: tokens."""
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    """AdamW, and the learning rate over the run."""
