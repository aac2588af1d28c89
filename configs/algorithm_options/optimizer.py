"""The optimizer, and the value model with its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Optional


class Schedule(Enum):
    constant = "constant"
    """The learning rate itself."""
    linear = "linear"
    """Falls evenly to 0 at the end of the run."""
    cosine = "cosine"
    """Falls along half a cosine to 0 at the end of the run."""


@dataclass
class OptimizerOptions:
    learning_rate: float = 1e-6
    """Highest learning rate, after the warm-up. Unit: 1."""
    schedule: Schedule = Schedule.constant
    """What becomes of the learning rate after the warm-up."""
    warmup_updates: int = 0
    """Updates over which the learning rate rises evenly to its highest. Unit: updates."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of AdamW's mean of the gradients and of its mean of their squares. Unit: 1."""
    eps: float = 1e-8
    """Added to the root of the mean square that AdamW divides by. Unit: 1."""
    weight_decay: float = 0.0
    """Share of each trained weight, times the learning rate, that a step takes off it. Unit: 1."""
    max_grad_norm: float = 1.0
    """A gradient that is longer than this is shortened to it. Unit: 1."""


@dataclass
class ValueOptions:
    """A second network, which predicts from the state before each decision what the sample will be worth; advantages
    are then GAE (`rl/algorithm/gae.py`) over the sample's steps, and `advantage` says what the sample as a whole is
    worth."""

    discount: float = 1.0
    """GAE's gamma: what a reward one step later counts. Unit: 1."""
    gae_lambda: float = 1.0
    """GAE's lambda: 1 compares what came out with the prediction; 0 the prediction of the next step with that of this
    one, which varies less and is as wrong as the predictions are. Unit: 1."""
    clip: Optional[float] = 0.2  # noqa: UP045
    """How far one update's training may take a prediction, in units of `advantage`; null is as far as it goes. Unit:
    advantages."""
    passes: int = 1
    """Passes over an update's samples, in the same minibatches as the policy's. Unit: passes."""
    optimizer: OptimizerOptions = field(default_factory=lambda: OptimizerOptions(learning_rate=5e-6))
    """AdamW of the value model."""
