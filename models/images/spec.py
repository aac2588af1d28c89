"""What everyone else must know about an image model; values only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.images.prediction import Prediction


class Guidance(Enum):
    """How a guidance scale reaches the model."""

    classifier_free = "classifier_free"
    """The caller mixes a conditional and an unconditional output."""
    embedded = "embedded"
    """The scale is an input of the network, which was distilled to it (FLUX.1-dev)."""
    none = "none"
    """No guidance at all (FLUX.1-schnell)."""


@dataclass(frozen=True)
class ImageSpec:
    family: str
    prediction: Prediction
    guidance: Guidance
    distilled: bool
    """Known to be distilled to a few steps without guidance: a FLUX transformer that takes no guidance scale, which is
    FLUX.1-schnell. No file tells SDXL-turbo and its like from their base models, so False proves nothing for them."""
    latent_channels: int
    pixels_per_cell: int
    """Edge of the square of pixels that one latent cell stands for."""
    patch: int
    """Edge of the square of cells that the network reads as one token; the height and width in cells are multiples."""
    image_size: int
    """Edge in pixels of the square images that the model was made for."""
    largest_size: int | None
    """Longest edge in pixels that the network has positions for; None is unlimited."""
    even_sigmas: bool
    """Whether the pipeline replaces a flow scheduler's own sigmas by 1, ..., 1 / steps."""
    scheduler: dict[str, Any]
    """The pipeline's scheduler_config.json, `_class_name` included, with what the pipeline writes over it."""

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of the latents of an image of `height` x `width` pixels.

        Raises:
            ValueError: the size is not a multiple of what the network reads at once, or beyond its positions.
        """
        multiple = self.pixels_per_cell * self.patch
        for name, size in [("height", height), ("width", width)]:
            if size < 1 or size % multiple:
                raise ValueError(
                    f"an image {name} of {size} pixels is not possible with a model of family {self.family}: it must "
                    f"be a multiple of {multiple} ({self.pixels_per_cell} pixels a latent cell, {self.patch} cells a "
                    f"patch), such as {max(size // multiple, 1) * multiple}"
                )
            if self.largest_size is not None and size > self.largest_size:
                raise ValueError(
                    f"an image {name} of {size} pixels is beyond the {self.largest_size} that this model has positions "
                    "for; choose a smaller one"
                )
        return self.latent_channels, height // self.pixels_per_cell, width // self.pixels_per_cell


@dataclass(frozen=True, eq=False)
class ImagePrompt:
    """What an image is asked for with."""

    caption: str
    user: np.ndarray | None = None
    """(U,) fp32 vector of the user; None for a model without a user adapter."""


@dataclass(frozen=True)
class Condition:
    """Encoded prompts."""

    embeds: Tensor
    """(B, T, W) fp32: one vector a token."""
    pooled: Tensor | None
    """(B, V) fp32: one vector a prompt; None for Stable Diffusion 1 and 2, which have none."""
    user: Tensor | None = None
    """(B, U) fp32: the vector of each row's user; None for a model without a user adapter."""

    def of_user(self, user: np.ndarray | None) -> Condition:
        """The same single prompt from a user with vector (U,)."""
        return self if user is None else replace(self, user=torch.from_numpy(user)[None])

    @staticmethod
    def joined(conditions: Sequence[Condition], device: torch.device) -> Condition:
        """The prompts of all, one behind the other."""
        embeds = torch.cat([condition.embeds for condition in conditions]).to(device)
        pooled, users = (
            [value for condition in conditions if (value := getattr(condition, name)) is not None]
            for name in ("pooled", "user")
        )
        return Condition(
            embeds, torch.cat(pooled).to(device) if pooled else None, torch.cat(users).to(device) if users else None
        )

    def take(self, rows: Tensor) -> Condition:
        pooled, user = (None if value is None else value[rows] for value in (self.pooled, self.user))
        return Condition(self.embeds[rows], pooled, user)
