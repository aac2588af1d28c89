"""The optimizer, and the value model with its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Optional


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
