"""The distance to another policy that is taken off."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class KlEstimator(Enum):
    k1 = "k1"
    """Log-ratio of policy to reference: its mean is the KL, its value may be negative."""
    k2 = "k2"
    """Half the squared log-ratio."""
    k3 = "k3"
    """Ratio of reference to policy, minus 1, minus its logarithm: its mean is the KL, and it is never negative."""
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
    """Times the distance, in the loss; 0 measures none. Unit: 1."""
    to: KlTarget = KlTarget.reference
    """The policy to stay near to."""
    estimator: KlEstimator = KlEstimator.k3
    """How the distance is found."""
