"""Latents to images and back, by the pipeline's VAE."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor


class ImageCodec:
    """A frozen fp32 AutoencoderKL with its pipeline's scaling of the latents."""

    def __init__(self, vae: AutoencoderKL) -> None:
        self.vae = vae
        config = vae.config
        self._factor: float = config.scaling_factor
        self._mean = _per_channel(config.latents_mean, config.shift_factor or 0.0, vae)
        self._std = _per_channel(config.latents_std, 1.0, vae)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, H, W, 3) uint8 of latents (B, C, h, w), clamped and rounded as the stock pipeline does.

        One at a time, so that an image does not depend on its batch mates, and memory does not grow with them.
        """
        return (self.pixels(latents) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def pixels(self, latents: Tensor) -> Tensor:
        """Images (B, 3, H, W) fp32 in [0, 1] before rounding, differentiable in the latents (B, C, h, w).

        A value that is clamped has gradient zero, as the reward that sees it has.
        """
        latents = latents.to(self._mean) * self._std / self._factor + self._mean
        decoded = [self.vae.decode(row, return_dict=False)[0] for row in latents.split(1)]
        return VaeImageProcessor.denormalize(torch.cat(decoded))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Latents (B, C, h, w) fp32 of images (B, H, W, 3) uint8: the mean of the VAE's posterior."""
        pixels = VaeImageProcessor.normalize(images.to(self._mean.device).permute(0, 3, 1, 2).float() / 255)
        means = torch.cat([self.vae.encode(row).latent_dist.mode() for row in pixels.split(1)])
        return (means - self._mean) * self._factor / self._std


def _per_channel(values: list[float] | None, default: float, vae: AutoencoderKL) -> Tensor:
    return torch.tensor([default] if values is None else values, device=vae.device).view(1, -1, 1, 1)
