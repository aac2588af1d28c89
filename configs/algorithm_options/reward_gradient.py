"""Where the gradient of a reward goes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Optional


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
    """Denoising steps that are differentiated, the last ones; see `cut`. Unit: steps."""
    cut: Cut = Cut.fixed
    """How many of the last steps are differentiated in an update."""
    cut_std: float = 5.0
    """Standard deviation of the number of differentiated steps (cut=gaussian). Unit: steps."""
    every: int = 1
    """Only every n-th of these steps is differentiated, from an offset drawn once an update (LongAlign). Unit:
    steps."""
    detach_input: bool = False
    """The gradient reaches earlier steps along the latent alone, not through inputs of later networks (LongAlign)."""
    earliest_stop: Optional[int] = None  # noqa: UP045
    """Denoising stops at a step drawn from this one to the last, once an update, and the reward sees the clean image as
    estimated there (ReFL); null goes to the end. Unit: steps."""
    renoise: int = 0
    """Noises the finished image to the last level this many times and averages the gradients of its last step, instead
    of the chain's own last step (DRaFT-LV). Unit: draws."""
    unit_gradients: bool = False
    """Give each term's gradient in an image length one before its weight, so that no reward drowns out another (R0)."""
    least_eta: Optional[float] = None  # noqa: UP045
    """The kernel's eta is drawn between this and rollout.denoising.eta, once an update, so that the model meets varied
    amounts of noise (R0); null is always the latter. Unit: the kernel's own."""
    base_pull: float = 0.0
    """Coefficient of the squared distance of the trained weights from the loaded ones, taken off the reward (R0). Unit:
    rewards."""
    checkpointing: bool = False
    """Keep the latents between differentiated steps only, and compute the rest again: one more forward a step."""
