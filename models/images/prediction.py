"""What the network of an image policy predicts."""

from __future__ import annotations

from enum import Enum


class Prediction(Enum):
    """With a latent x = signal * x0 + noise * eps."""

    epsilon = "epsilon"
    """The noise eps (Stable Diffusion 1, SDXL)."""
    v = "v"
    """signal * eps - noise * x0 (arXiv 2202.00512; Stable Diffusion 2)."""
    flow = "flow"
    """eps - x0: the velocity of a straight path (Stable Diffusion 3, FLUX)."""
