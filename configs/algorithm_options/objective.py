"""What is minimised, and what sums over decisions are divided by."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


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
    """No ratio."""


class ObjectiveKind(Enum):
    ppo_clip = "ppo_clip"
    """The smaller of the ratio and the clipped ratio times the advantage (PPO, GRPO)."""
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
    custom = "custom"
    """A function of yours, of the log-ratios and advantages of units (`custom.objective`)."""


class AnchorOn(Enum):
    """The samples that the anchor is taken of."""

    better = "better"
    """Those with a positive advantage."""
    solved = "solved"
    """Those that are solved; for rewards with a `reward.solved_at`."""


class Denominator(Enum):
    """What the sum over decisions is divided by; always over the global batch of an update."""

    token = "token"
    """Number of trained decisions."""
    sequence = "sequence"
    """Mean over decisions, then mean over sequences."""
    step = "step"
    """Mean over a part's decisions, mean over the parts of a sequence, mean over sequences (TraceRL's paper)."""
    row = "row"
    """Mean over the decisions that one state of the text scores, then over all such rows of all sequences: more rounds
    count more (TraceRL's code for bidirectional models)."""
    row_length = "row_length"
    """Sum over these decisions through the longest sequence's number of decisions, then mean over the rows; of a
    block-causal model a row is a round of every block (TraceRL's code for block diffusion)."""
    canvas = "canvas"
    """Number of sequences times the canvas length (for block-causal models the group's longest)."""
    custom = "custom"
    """A function of yours, of each group's mask (`custom.denominator`)."""


@dataclass
class OldPolicyOptions:
    """The slow copy of the policy that generates the samples (objective=nft)."""

    decay: float = 0.5
    """Its largest share of itself after an update; the rest is the policy's. Unit: 1."""
    growth: float = 0.001
    """What that share grows by each update, from 0: early on the policy is better than its past. Unit: 1."""
