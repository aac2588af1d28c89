"""LAION's aesthetic predictor, version 2: how people rated pictures like this one, from 1 to 10, whatever the prompt.

A linear head on CLIP ViT-L/14's embedding of unit length. OpenAI's preprocessing, which the predictor uses, rounds half
of an odd number of cropped pixels to the nearest even number.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewards.checkpoints import check_preprocessing
from rewards.differentiable import differentiable
from rewards.images.linear_head import Layers, linear_layers, through
from rewards.images.preferences import CLIP_L, Preset
from rewards.images.preprocessing import Preprocessing
from rewards.picture import batches

if TYPE_CHECKING:  # torch is imported where it is needed, which is not in most reward processes
    from torch import Tensor

AESTHETIC = Preset("aesthetic", CLIP_L, Preprocessing(nearest=True))
HEAD = "sac+logos+ava1-l14-linearMSE.pth"
REVISION = "fe88a163f4661b4ddabba0751ff645e2e620746e"
"""Commit of the repository christophschuhmann/improved-aesthetic-predictor on GitHub."""


@differentiable
def aesthetic(
    images: Tensor,
    head: str | None = None,
    path: str | None = None,
    preprocessing: str = "published",
    device: str | None = None,
    batch: int = 16,
    **_: Any,
) -> Tensor:
    """(B,) predicted ratings of images (B, 3, H, W) in [0, 1]; most pictures are between 4 and 7.

    Args:
        head: file of the head's weights, `HEAD`.
        path: folder of CLIP ViT-L/14; None looks into the hub's cache.
        preprocessing: `published`, or `folder` for what the checkpoint's own file says.
        device: where the network is; None is where the pictures are.
        batch: pictures at a time.

    Raises:
        ValueError: weights are missing, do not fit, or have another preprocessing; an option is wrong.
    """
    import torch

    check_preprocessing("aesthetic", preprocessing)
    parts = batches("aesthetic", len(images), batch)
    if head is None or not Path(head).is_file():
        raise ValueError(
            f"the reward `aesthetic` needs args.head, the file {HEAD} (3.7 MB, licence: Apache-2.0), and has {head}: "
            f"download it from christophschuhmann/improved-aesthetic-predictor on GitHub at {REVISION}"
        )
    place = device or str(images.device)
    encoder = AESTHETIC.encoder(path, preprocessing, place)
    layers = _head(head, encoder.model.config.projection_dim, place)
    return torch.cat([through(layers, encoder.pictures(images[part].to(place))) for part in parts]).to(images.device)


@functools.cache
def _head(file: str, width: int, device: str) -> Layers:
    import torch

    return linear_layers(torch.load(file, map_location="cpu", weights_only=True), width, device, file)
