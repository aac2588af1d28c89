"""What an algorithm is: a cell of likelihood x ratio x objective x advantage, and its options."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Optional


class LikelihoodKind(Enum):
    replay = "replay"
    """Log-probability of the recorded chain."""
    elbo = "elbo"
    """Minus the denoising loss of the finished sample under fresh masks or noise."""
    proposals = "proposals"
    """Log-probability of all that each round of a text proposed, kept or not (MDPO)."""
    reward_gradient = "reward_gradient"
    """None: a sample counts with its reward itself, differentiated through the last denoising steps (images)."""


class Partition(Enum):
    """How a replay groups the rounds of a trace; a part is scored in one forward, under the canvas at its start."""

    every_step = "every_step"
    shrink = "shrink"
    segments = "segments"
    one = "one"
    forks = "forks"
    """The rounds from one fork of a tree to the next, so that a branch is scored under the canvas of its parent
    (d-TreeRPO)."""
    left_to_right = "left_to_right"
    """Every token its own part, in the order of positions whatever the recorded one: the exact autoregressive
    factorisation (JustGRPO)."""


class MaskLaw(Enum):
    """How many of L positions the denoising loss of a text masks."""

    uniform_rate = "uniform_rate"
    """Each with probability t, t uniform in `rate_range`; weight 1 / t."""
    exact_count = "exact_count"
    """Exactly m, uniform in 1 ... L; weight L / m, which varies less."""


class MaskWeight(Enum):
    """What the log-probability of a masked position counts."""

    elbo = "elbo"
    """1 / the fraction that the law masks, which makes the estimate a lower bound of the log-likelihood."""
    none = "none"
    """1, for means over the masked positions (UniGRPO)."""


class NoiseLaw(Enum):
    """How the noise level of an image's denoising loss is drawn."""

    uniform = "uniform"
    logit_normal = "logit_normal"
    """More of the middle levels (Stable Diffusion 3)."""
    grid = "grid"
    """The levels that the rollout's own schedule denoises from (DiffusionNFT, AWM, DGPO)."""
    inversion = "inversion"
    """The levels of a schedule of `inversion_steps`, and instead of drawn noise the one that the policy's own ODE leads
    to when it is walked backwards from the image (DDIM-InPO)."""


class LossWeight(Enum):
    """Weight of an image's denoising loss l at a level whose share of noise is t, a flow's time (AWM)."""

    none = "none"
    """l"""
    time = "time"
    """t l"""
    time_squared = "time_squared"
    """t^2 l"""
    huber = "huber"
    """t ((l + delta)^p - delta^p) / p with p = 1/4: concave, so that bad samples cannot be pushed away without end."""


@dataclass
class LikelihoodOptions:
    kind: LikelihoodKind = LikelihoodKind.replay
    partition: Partition = Partition.every_step
    shrink: int = 1
    """Rounds in a part (partition=shrink)."""
    segments: int = 4
    """Parts of a trace (partition=segments)."""
    sampled_parts: Optional[int] = None  # noqa: UP045
    """Parts of each sample that a pass scores, drawn at random, for all of them (AGRPO); null scores all."""
    block_length: Optional[int] = None  # noqa: UP045
    """Block-causal text: score under attention blocks of this many tokens, a multiple of those that generate, to adapt
    a model to larger blocks (TraceRL); null is the model's own."""
    prompt_masking: float = 0.0
    """Bidirectional text: probability that a prompt token is shown as MASK, drawn anew each pass (diffu-GRPO); with
    `canvas_block` so is a token of the blocks before."""
    until_stop: bool = False
    """Text: score what lies before the stop, its token included. False scores all that was sampled: a token behind the
    stop was seen by those that came later."""
    draws: int = 1
    """Masks or noises that a sample is scored under in each pass (kind=elbo); the estimates are averaged."""
    mask_law: MaskLaw = MaskLaw.uniform_rate
    """Text, kind=elbo, as are the options below up to `mask_weight`."""
    rate_range: tuple[float, float] = (0.001, 1.0)
    """Lowest and highest rate (mask_law=uniform_rate); [1, 1] masks everything (wd1)."""
    rising_rate: bool = False
    """The rate is drawn in the first of an update's epochs and rises evenly to the highest in the last (UniGRPO)."""
    complement: bool = False
    """Score the complementary mask too, so that each position is masked in one of two (coupled-GRPO, ESPO)."""
    full_view: float = 0.0
    """Add the score under the fully masked text, times this (coupled-GRPO: 0.5)."""
    canvas_block: Optional[int] = None  # noqa: UP045
    """Mask and score one random block of this many positions, all later ones masked (SPG); null is the whole text."""
    mask_weight: MaskWeight = MaskWeight.elbo
    noise_law: NoiseLaw = NoiseLaw.uniform
    """Images, kind=elbo. Several draws are spread evenly over the law."""
    level_range: tuple[float, float] = (0.0, 1.0)
    """Images, kind=elbo: part of the noise levels to draw from, between 0 (clean) and 1 (pure noise), as a share of a
    flow's time, of the training steps, or of the steps of a grid."""
    loss_weight: LossWeight = LossWeight.none
    """Images, kind=elbo."""
    shared_noise: bool = False
    """Images, kind=elbo: all samples of a group share levels and noise, so that their losses differ by the samples only
    (Diffusion-DPO, DGPO). With noise_law=inversion they share the levels."""
    inversion_steps: int = 10
    """Steps from the image to pure noise (noise_law=inversion)."""
    unconditional_gradient: bool = True
    """Images with classifier-free guidance: differentiate the unconditional half too."""


class Ratio(Enum):
    element = "element"
    """One importance ratio for each decision."""
    step = "step"
    """One for the decisions that a step of the trace, or a draw of the denoising loss, scores together."""
    sequence = "sequence"
    """One for each sample, of the log-likelihoods per decision (GSPO, ESPO)."""
    guard = "guard"
    """The element ratio of Gaussian steps without its bias, and as wide at every step (GRPO-Guard)."""
    none = "none"


class ObjectiveKind(Enum):
    ppo_clip = "ppo_clip"
    clip_always = "clip_always"
    """The clipped ratio whatever the sign of the advantage (StableDRL, DPOK)."""
    trust_region = "trust_region"
    """The ratio, unless it is `clip_kl` nats away from the old policy and moving on (Flow-DPPO)."""
    linear_bound = "linear_bound"
    """Bounds of the sequence ratio that are sums over draws (BGPO)."""
    weighted = "weighted"
    """Log-likelihood times advantage, without ratio or clip."""
    sandwich = "sandwich"
    """The same with a lower bound of the log-likelihood for gains and an upper one for losses (SPG)."""
    nft = "nft"
    """Denoising of good samples by a policy ahead of the old one, of bad samples by one behind it (DiffusionNFT)."""
    group_dpo = "group_dpo"
    """Logistic loss of the advantage-weighted log-likelihoods of a group against the reference's (DPO, VRPO, DGPO)."""


class AdvantageKind(Enum):
    """What a sample's reward is compared with, and the unit of the difference."""

    zscore = "zscore"
    """Group mean, group standard deviation."""
    centred = "centred"
    """Group mean."""
    leave_one_out = "leave_one_out"
    """Mean of the other samples of the group."""
    global_std = "global_std"
    """Group mean, standard deviation of the whole update (Flow-GRPO)."""
    batch = "batch"
    """Mean and standard deviation of the whole update."""
    softmax = "softmax"
    """Softmax of the centred rewards minus softmax of their negatives, times the group's size (wd1)."""
    best_worst = "best_worst"
    """+1 for the group's best sample, -1 for its worst; the others are left out (online DPO)."""
    running = "running"
    """Mean and standard deviation of the prompt's latest rewards, over updates (DDPO)."""
    per_step = "per_step"
    """Step by step: what the reward of a step's estimate of the finished sample gained, and those that follow, against
    the same step of the group's other samples (MDPO)."""
    siblings = "siblings"
    """Of each branch of a tree of samples: the mean of its siblings (d-TreeRPO)."""
    depth_zscore = "depth_zscore"
    """The same: mean and standard deviation of all branches at its depth (BranchGRPO)."""
    constant = "constant"
    """One for every demonstration: supervised learning."""
    preference = "preference"
    """+1 for the chosen and -1 for the rejected answer of each pair in the data."""
    raw = "raw"
    """Nothing: the reward itself, for a value model, which is what it is compared with (DPOK)."""
    none = "none"
    """Samples are not compared: reward gradients, which know how each could be better."""

    @property
    def over_the_update(self) -> bool:
        """Compares a sample with those of other groups too."""
        return self in (AdvantageKind.global_std, AdvantageKind.batch, AdvantageKind.running)

    @property
    def offline(self) -> bool:
        """Learns from answers in the data: nothing is generated and scored for training."""
        return self in (AdvantageKind.constant, AdvantageKind.preference)

    @property
    def of_branches(self) -> bool:
        """Compares parts of samples, which others share, and not samples."""
        return self in (AdvantageKind.siblings, AdvantageKind.depth_zscore)


class AnchorOn(Enum):
    """The samples that the anchor is taken of."""

    better = "better"
    """Those with a positive advantage."""
    solved = "solved"
    """Those that are solved (`reward.solved_at`)."""


class Denominator(Enum):
    """What the sum over decisions is divided by; always over the global batch of an update."""

    token = "token"
    """Number of trained decisions."""
    sequence = "sequence"
    """Mean over decisions, then mean over sequences."""
    step = "step"
    """Mean over a part's decisions, mean over the parts of a sequence, mean over sequences (TraceRL)."""
    canvas = "canvas"
    """Number of sequences times the canvas length (for block-causal models the group's longest)."""


class KlEstimator(Enum):
    k1 = "k1"
    k2 = "k2"
    k3 = "k3"
    exact = "exact"
    """Closed form, for Gaussian steps."""
    flow_grpo = "flow_grpo"
    """As Flow-GRPO's code has it: squared distance of the means over 2 tau^2, without the step's length."""
    output = "output"
    """Images, likelihood.kind=elbo: mean squared distance of the networks' outputs (DiffusionNFT, AWM, DGPO)."""


class KlTarget(Enum):
    reference = "reference"
    """The model as it was before training; with adapters, the model without them."""
    old = "old"
    """The policy before the update (TraceRL): it slows each update down but does not bound the drift."""


@dataclass
class KlOptions:
    coefficient: float = 0.0
    to: KlTarget = KlTarget.reference
    estimator: KlEstimator = KlEstimator.k3


@dataclass
class RunningOptions:
    """Statistics of advantage=running."""

    buffer: int = 32
    """Latest rewards of a prompt that are kept."""
    minimum: int = 16
    """With fewer, the update's own mean and standard deviation are taken."""


class Cut(Enum):
    """How many of the last denoising steps are differentiated; drawn once an update, never step by step."""

    fixed = "fixed"
    """`last_steps` (DRaFT-K)."""
    uniform = "uniform"
    """1 to `last_steps`, each as likely (AlignProp)."""
    gaussian = "gaussian"
    """Rounded normal draw around `last_steps` with standard deviation `cut_std` (AlignProp)."""


@dataclass
class RewardGradientOptions:
    """Where the gradient of a reward goes (likelihood.kind=reward_gradient)."""

    last_steps: int = 1
    """Denoising steps that are differentiated, the last ones; see `cut`."""
    cut: Cut = Cut.fixed
    cut_std: float = 5.0
    """Steps (cut=gaussian)."""
    every: int = 1
    """Only every n-th of these steps is differentiated, from an offset drawn once an update (LongAlign)."""
    detach_input: bool = False
    """The gradient reaches earlier steps along the latent alone, not through inputs of later networks (LongAlign)."""
    earliest_stop: Optional[int] = None  # noqa: UP045
    """Denoising stops at a step drawn from this one to the last, once an update, and the reward sees the clean image as
    estimated there (ReFL); null goes to the end."""
    renoise: int = 0
    """Noises the finished image to the last level this many times and averages the gradients of its last step, instead
    of the chain's own last step (DRaFT-LV)."""
    unit_gradients: bool = False
    """Give each term's gradient in an image length one before its weight, so that no reward drowns out another (R0)."""
    least_eta: Optional[float] = None  # noqa: UP045
    """The kernel's eta is drawn between this and rollout.denoising.eta, once an update, so that the model meets varied
    amounts of noise (R0); null is always the latter."""
    base_pull: float = 0.0
    """Coefficient of the squared distance of the trained weights from the loaded ones, taken off the reward (R0)."""
    checkpointing: bool = False
    """Keep the latents between differentiated steps only, and compute the rest again: one more forward a step."""


class Schedule(Enum):
    constant = "constant"
    linear = "linear"
    cosine = "cosine"


@dataclass
class OptimizerOptions:
    learning_rate: float = 1e-6
    schedule: Schedule = Schedule.constant
    warmup_updates: int = 0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0


@dataclass
class OldPolicyOptions:
    """The slow copy of the policy that generates the samples (objective=nft)."""

    decay: float = 0.5
    """Its largest share of itself after an update; the rest is the policy's."""
    growth: float = 0.001
    """What that share grows by each update, from 0: early on the policy is better than its past."""


@dataclass
class ValueOptions:
    """A second network, which predicts from the state before each decision what the sample will be worth; advantages
    are then GAE (`rl/algorithm/gae.py`) over the sample's steps, and `advantage` says what the sample as a whole is
    worth."""

    discount: float = 1.0
    """GAE's gamma: what a reward one step later counts."""
    gae_lambda: float = 1.0
    """1 compares what came out with the prediction; 0 the prediction of the next step with that of this one, which
    varies less and is as wrong as the predictions are."""
    clip: Optional[float] = 0.2  # noqa: UP045
    """How far one update's training may take a prediction, in units of `advantage`; null is as far as it goes."""
    passes: int = 1
    """Passes over an update's samples, in the same minibatches as the policy's."""
    optimizer: OptimizerOptions = field(default_factory=lambda: OptimizerOptions(learning_rate=5e-6))


@dataclass
class AlgorithmOptions:
    """likelihood x ratio x objective x advantage; a recipe is a YAML file that fills these in."""

    likelihood: LikelihoodOptions = field(default_factory=LikelihoodOptions)
    ratio: Ratio = Ratio.element
    objective: ObjectiveKind = ObjectiveKind.ppo_clip
    advantage: AdvantageKind = AdvantageKind.zscore
    normalise_terms: bool = False
    """Make each reward term a z-score within its group before they are weighted and summed (GDPO, LightningRL)."""
    advantage_clip: Optional[float] = None  # noqa: UP045
    """Advantages are limited to this size; null is unlimited."""
    running: RunningOptions = field(default_factory=RunningOptions)
    selected_steps: Optional[int] = None  # noqa: UP045
    """Text, advantage=per_step: rounds of a group that are trained, those of the largest advantages (MDPO: 8); null
    trains all."""
    leaf_weights: bool = False
    """Let a branch of a tree count for each of the samples that share it, which makes advantage=siblings unbiased
    (with denominator=token); false counts it once, as the papers do."""
    extremes: Optional[float] = None  # noqa: UP045
    """Train of each set of siblings, or of a group without branching, only the best sample if its advantage is at least
    this, and the worst if it is at most minus this (B2-DiffuRL: 0.5); null trains all."""
    extreme_samples: Optional[int] = None  # noqa: UP045
    """Train of each group only this many samples of the highest advantages and as many of the lowest; with advantages
    of branches only so many leaves, behind the step of the last fork (BranchGRPO's width pruning); null trains all."""
    value: Optional[ValueOptions] = None  # noqa: UP045
    """Train a value model; null has none."""
    filter_zero_variance: bool = True
    """Leave groups whose rewards are all equal out of the loss and out of its denominator."""
    least_difference: Optional[float] = None  # noqa: UP045
    """Leave out groups whose highest and lowest reward differ by no more than this (SPO), as if they were equal."""
    solved_band: Optional[tuple[float, float]] = None  # noqa: UP045
    """Leave out groups whose solved fraction lies outside these bounds (TraceRL: 0.2 and 0.8)."""
    clip: float = 0.2
    clip_high: Optional[float] = None  # noqa: UP045
    """Upper clip half-width; null is the same as `clip`."""
    clip_kl: Optional[float] = None  # noqa: UP045
    """Clip width in nats: the width of the ratio when one decision has moved this far from the old policy. Unlike
    `clip`, which it replaces, it means the same for every latent size and convention."""
    dual_clip: Optional[float] = None  # noqa: UP045
    """Largest ratio that a negative advantage is multiplied by; above 1."""
    self_normalise: bool = False
    """Divide the loss by the mean of the clipped ratios of the minibatch (StableDRL)."""
    beta: float = 0.1
    """Scale of the log-likelihoods against the reference's (objective=group_dpo); how far ahead and behind (nft)."""
    reference_clip: Optional[float] = None  # noqa: UP045
    """Half-width of the clip of a sample's ratio to the reference (objective=group_dpo; SPO: 0.1): beyond it the sample
    has no gradient, not even back. Null is unlimited."""
    old: OldPolicyOptions = field(default_factory=OldPolicyOptions)
    upper_power: float = 1.5
    """Power of the upper bound (objective=sandwich)."""
    upper_share: float = 0.5
    """Share of the upper bound where the advantage is negative (objective=sandwich)."""
    anchor: float = 0.0
    """Times the supervised loss on some of the samples, beside the objective."""
    anchor_on: AnchorOn = AnchorOn.better
    anchor_growth: Optional[float] = None  # noqa: UP045
    """Let the anchor rise over the run, from 0: its share after t of the updates is (e^gt - 1) / (e^g - 1), with this
    as g (d-TreeRPO: 2). Null keeps it constant."""
    denominator: Denominator = Denominator.token
    kl: KlOptions = field(default_factory=KlOptions)
    reward_gradient: RewardGradientOptions = field(default_factory=RewardGradientOptions)
    minibatches: int = 1
    """Optimizer updates that one pass over an update's samples is split into."""
    epochs: int = 1
    """Passes over an update's samples."""
    micro_batch_tokens: int = 16384
    """Tokens, padding included, of one forward and backward pass."""
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
