"""Calling an image policy with or without guidance; the sampler and the learner use the same call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from models.images.spec import Condition


@dataclass(frozen=True)
class Conditions:
    """What B rows are conditioned on."""

    prompt: Condition
    empty: Condition | None
    """The unconditional half of classifier-free guidance; None without it. Its user is the prompt's: guidance is away
    from the empty prompt, within what the model makes for this user."""
    embedded_scale: float | None
    """Guidance scale of a network that takes it as an input."""

    def take(self, rows: Tensor) -> Conditions:
        empty = None if self.empty is None else self.empty.take(rows)
        return Conditions(self.prompt.take(rows), empty, self.embedded_scale)


def guided_output(
    model: Callable[..., Tensor],
    latents: Tensor,
    time: Tensor,
    conditions: Conditions,
    scale: float,
    guided: Tensor,
    unconditional_gradient: bool = True,
) -> Tensor:
    """(B, C, h, w) fp32 output of the network; with classifier-free guidance u + scale (c - u), arXiv 2207.12598.

    Args:
        latents: (B, C, h, w) fp32.
        time: (B,) fp32.
        guided: (B,) bool, rows that are guided; matters with an empty condition only.
        unconditional_gradient: whether u is differentiated too.
    """
    prompt, empty = conditions.prompt, conditions.empty
    if empty is None:
        embedded = None if conditions.embedded_scale is None else torch.full_like(time, conditions.embedded_scale)
        return model(latents, time, prompt.embeds, prompt.pooled, embedded, prompt.user)
    output = model(
        torch.cat([latents, latents]),
        torch.cat([time, time]),
        torch.cat([empty.embeds, prompt.embeds]),
        None if prompt.pooled is None or empty.pooled is None else torch.cat([empty.pooled, prompt.pooled]),
        None,
        None if prompt.user is None else torch.cat([prompt.user, prompt.user]),
    )
    unconditional, conditional = output.chunk(2)
    if not unconditional_gradient:
        unconditional = unconditional.detach()
    mixed = unconditional + scale * (conditional - unconditional)
    return torch.where(guided.view(-1, 1, 1, 1), mixed, conditional)
