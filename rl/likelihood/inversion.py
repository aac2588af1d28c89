"""From clean latents up to noise, along the deterministic chain that would have led down to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from models.images.prediction import Prediction
from rollout.images.kernels.gaussian import ode_step
from rollout.images.kernels.levels import Level

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The network's output for latents (B, C, h, w) and times (B,); the last argument, (B,) int64, says which rows these
are."""


def invert(predict: Predict, clean: Tensor, steps: Tensor, ladder: Sequence[Level], prediction: Prediction) -> Tensor:
    """DDIM inversion: the steps of the ODE against their direction, each with the output at its cleaner end (arXiv
    2010.02502, section 4.3).

    Args:
        clean: (M, C, h, w), taken to be at the first level.
        steps: (M,) int64, how many steps each row is led up.
        ladder: levels from clean to noise.

    Returns:
        (M, C, h, w) fp32. The network is called len(ladder) - 1 times whatever `steps` are.
    """
    latents = clean.clone()
    for number, (level, following) in enumerate(pairwise(ladder)):
        walking = (steps > number).nonzero().flatten()
        called = walking if len(walking) else torch.zeros_like(steps[:1])
        time = torch.full((len(called),), level.time, dtype=torch.float32, device=clean.device)
        output = predict(latents[called], time, called)
        step = ode_step(prediction, level, following)
        latents[walking] = step.latent * latents[walking] + step.output * output[: len(walking)]
    return latents
