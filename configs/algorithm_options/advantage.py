"""What a sample is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


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
    custom = "custom"
    """A function of yours, of the rewards of each group (`custom.advantage`)."""

    @property
    def over_the_update(self) -> bool:
        """Compares a sample with those of other groups too."""
        return self in (AdvantageKind.global_std, AdvantageKind.batch, AdvantageKind.running)

    @property
    def divides(self) -> bool:
        """Measures differences in standard deviations."""
        return self.over_the_update or self in (
            AdvantageKind.zscore,
            AdvantageKind.per_step,
            AdvantageKind.depth_zscore,
        )

    @property
    def offline(self) -> bool:
        """Learns from answers in the data: nothing is generated and scored for training."""
        return self in (AdvantageKind.constant, AdvantageKind.preference)

    @property
    def of_branches(self) -> bool:
        """Compares parts of samples, which others share, and not samples."""
        return self in (AdvantageKind.siblings, AdvantageKind.depth_zscore)


class TermScale(Enum):
    """What makes terms of a reward comparable, within each group, before they are weighted and summed."""

    none = "none"
    """Nothing: the reward is the weighted sum."""
    zscore = "zscore"
    """Standard scores (GDPO, LightningRL). Their sum, compared over the update by advantage=batch, is GDPO's."""
    rank = "rank"
    """Ranks, from -0.5 for the lowest to 0.5 for the highest; equals share the mean of theirs."""


@dataclass
class RunningOptions:
    """Statistics of advantage=running."""

    buffer: int = 32
    """Latest rewards of a prompt that are kept. Unit: rewards."""
    minimum: int = 16
    """With fewer, the update's own mean and standard deviation are taken. Unit: rewards."""
