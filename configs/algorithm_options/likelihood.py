"""How log-probabilities come about: replays, denoising losses, reward gradients."""

from __future__ import annotations

from dataclasses import dataclass
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
    """Each round: the exact log-probability of the trace."""
    shrink = "shrink"
    """`shrink` rounds of a block that follow each other (TraceRL)."""
    segments = "segments"
    """`segments` parts of each block, with as many rounds each as nearly as they divide."""
    one = "one"
    """All rounds of a block at once; without blocks, the whole trace."""
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
    """A flow's time, or the training steps, evenly."""
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
    """Where the log-probability comes from."""
    partition: Partition = Partition.every_step
    """How a replay groups the rounds of a trace (kind=replay)."""
    shrink: int = 1
    """Rounds in a part (partition=shrink). Unit: rounds."""
    segments: int = 4
    """Parts of a trace (partition=segments). Unit: parts."""
    sampled_parts: Optional[int] = None  # noqa: UP045
    """Parts of each sample that a pass scores, drawn at random, for all of them (AGRPO); null scores all. Unit:
    parts."""
    block_length: Optional[int] = None  # noqa: UP045
    """Block-causal text: score under attention blocks of this many tokens, a multiple of those that generate, to adapt
    a model to larger blocks (TraceRL); null is the model's own. Unit: tokens."""
    prompt_masking: float = 0.0
    """Bidirectional text: probability that a prompt token is shown as MASK, drawn anew each pass (diffu-GRPO); with
    `canvas_block` so is a token of the blocks before. Unit: 1."""
    until_stop: bool = False
    """Text: score what lies before the stop, its token included. False scores all that was sampled: a token behind the
    stop was seen by those that came later."""
    draws: int = 1
    """Masks or noises that a sample is scored under in each pass (kind=elbo); the estimates are averaged. Unit:
    draws."""
    mask_law: MaskLaw = MaskLaw.uniform_rate
    """How many positions are masked. Text, kind=elbo, as are the options below up to `mask_weight`."""
    rate_range: tuple[float, float] = (0.001, 1.0)
    """Lowest and highest rate (mask_law=uniform_rate); [1, 1] masks everything (wd1). Unit: share of the positions."""
    rising_rate: bool = False
    """The rate is drawn in the first of an update's epochs and rises evenly to the highest in the last (UniGRPO)."""
    complement: bool = False
    """Score the complementary mask too, so that each position is masked in one of two (coupled-GRPO, ESPO)."""
    full_view: float = 0.0
    """Add the score under the fully masked text, times this (coupled-GRPO: 0.5). Unit: 1."""
    canvas_block: Optional[int] = None  # noqa: UP045
    """Mask and score one random block of this many positions, all later ones masked (SPG); null is the whole text.
    Unit: positions."""
    mask_weight: MaskWeight = MaskWeight.elbo
    """What the log-probability of a masked position counts."""
    noise_law: NoiseLaw = NoiseLaw.uniform
    """How levels are drawn. Images, kind=elbo. Several draws are spread evenly over the law."""
    level_range: tuple[float, float] = (0.0, 1.0)
    """Images, kind=elbo: part of the noise levels to draw from, between 0 (clean) and 1 (pure noise), as a share of a
    flow's time, of the training steps, or of the steps of a grid. Unit: share of the noise levels."""
    loss_weight: LossWeight = LossWeight.none
    """Weight of the squared error at a level. Images, kind=elbo."""
    shared_noise: bool = False
    """Images, kind=elbo: all samples of a group share levels and noise, so that their losses differ by the samples only
    (Diffusion-DPO, DGPO). With noise_law=inversion they share the levels."""
    inversion_steps: int = 10
    """Steps from the image to pure noise (noise_law=inversion). Unit: steps."""
    unconditional_gradient: bool = True
    """Images with classifier-free guidance: differentiate the unconditional half too."""
