"""A small `AutoencoderKL` fitted to given images: what the tiny image bases draw with."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

CHANNELS = (24, 24, 24)
LATENT_CHANNELS = 4
LEARNING_RATE = 1e-2
LATENT_NOISE = 0.1
"""Noise put on the latents while fitting, relative to their spread: what a sampler leaves must not show."""


def fit_autoencoder(images: np.ndarray, *, seed: int, updates: int = 2000, batch: int = 16) -> AutoencoderKL:
    """Four times smaller latents that decode to the image they were encoded from.

    Args:
        images: uint8 (N, H, W, 3), on which the reconstruction error (mean absolute plus squared) is minimised.

    Returns:
        The autoencoder in evaluation mode.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        autoencoder = empty_autoencoder(images.shape[1])
        pixels = _pixels(images)
        optimizer = torch.optim.AdamW(autoencoder.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.0)
        for update in range(updates):
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * min(1.0, (update + 1) / 50) * _cosine(update / updates)
            target = pixels[torch.randint(len(pixels), (batch,))]
            latents = autoencoder.encode(target).latent_dist.mean
            noise = LATENT_NOISE * latents.std().detach() * torch.randn_like(latents)
            error = autoencoder.decode(latents + noise).sample - target
            loss = error.abs().mean() + error.square().mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(autoencoder.parameters(), 1.0)
            optimizer.step()
    return autoencoder.eval().requires_grad_(False)


def standardise(autoencoder: AutoencoderKL, images: np.ndarray, *, shift: bool) -> AutoencoderKL:
    """A copy whose `scaling_factor` gives these images' latents standard deviation one.

    Args:
        shift: also give them mean zero, by `shift_factor`; Stable Diffusion 1.5's pipeline knows no such factor.
    """
    with torch.no_grad():
        latents = torch.cat([autoencoder.encode(part).latent_dist.mean for part in _pixels(images).split(256)])
    standard = copy.deepcopy(autoencoder)
    standard.register_to_config(
        shift_factor=round(latents.mean().item(), 4) if shift else None,
        scaling_factor=round(1 / latents.std().item(), 4),
    )
    return standard


def empty_autoencoder(size: int) -> AutoencoderKL:
    """With fresh weights, for square images of `size` pixels."""
    autoencoder = AutoencoderKL(
        sample_size=size,
        latent_channels=LATENT_CHANNELS,
        block_out_channels=CHANNELS,
        down_block_types=("DownEncoderBlock2D",) * len(CHANNELS),
        up_block_types=("UpDecoderBlock2D",) * len(CHANNELS),
        layers_per_block=0,
        norm_num_groups=8,
        mid_block_add_attention=False,
        force_upcast=False,
    )
    # The posterior is a point but for a little noise, and only its mean is fitted.
    with torch.no_grad():
        autoencoder.quant_conv.weight[LATENT_CHANNELS:].zero_()
        autoencoder.quant_conv.bias[LATENT_CHANNELS:].fill_(-10.0)
    return autoencoder


def _pixels(images: np.ndarray) -> Tensor:
    """uint8 (N, H, W, 3) to fp32 (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def _cosine(share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * share))
